"""What becomes of a search's winner: fitted again if asked, scored once, registered, sent to the gate."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fmnist_exp.backend import interrupts
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.registry import gate, lineage
from fmnist_exp.tracking import run as runs
from fmnist_exp.tuning import refit, space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from fmnist_exp.registry.versions import Registration
    from fmnist_exp.tracking.run import Run


def register(
    config: ExperimentConfig,
    study: Study,
    best: FrozenTrial,
    data: FashionMNIST,
    parent: Run,
    tell: Callable[[str], None],
) -> tuple[float, Registration]:
    """Score the winner on the test set, register it, and let it try the gate.

    With `search.refit` it is the winner fitted again that is scored and registered, whatever the test set says of it;
    the gate compares it through the trial, which knows nothing of the validation images. `tell` hears of each step.
    """
    run_id, model_id = best.user_attrs["run_id"], best.user_attrs["model_id"]
    tags: dict[str, object] = {"study": study.study_name, "trial": best.number}
    tags["val_accuracy"] = best.user_attrs["val_accuracy"]
    if space.search_of(config).refit:
        again = refit.refit(config, best, parent, tell)
        tags[lineage.REFIT_OF] = run_id
        run_id, model_id, data = again.run_id, again.model_id, again.data
    winner = runs.Run(parent.client, run_id)
    test_accuracy = experiment_run.score_winner(winner, parent, model_id, data)
    tags |= {"test_accuracy": test_accuracy, "data_digest": data.train.digest, "git_commit": winner.git_commit}
    parent.log_output_model(model_id)
    interrupts.check()
    return test_accuracy, gate.enter(model_id, run_id, tags, parent, config)
