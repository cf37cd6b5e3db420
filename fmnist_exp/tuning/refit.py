"""The winner's setting fitted again on all 60,000 images, with one seed or several, before a version is made of it.

No image is held out, so nothing can choose an epoch, a seed or a network any more: each choice here is fixed before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.trial import FixedTrial

from fmnist_exp.config.files import override
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.config.search import Choice
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.tracking import finished
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tuning import space

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from fmnist_exp.tracking.run import Run


@dataclass(frozen=True)
class Refitted:
    """What is to be registered, and the images it was fitted on."""

    run_id: str
    model_id: str
    data: FashionMNIST


def check(config: ExperimentConfig) -> None:
    """Raise RequestError if the winner might need validation images to be fitted again."""
    search = space.search_of(config)
    schedules = search.space.get("training.schedule")
    possible = schedules.choices if isinstance(schedules, Choice) else [config.training.schedule]
    if search.refit and "plateau" in possible:
        raise RequestError(
            "search.refit leaves no validation images, which training.schedule=plateau needs; use one_cycle"
        )


def settings(config: ExperimentConfig, best: FrozenTrial) -> list[ExperimentConfig]:
    """The winner's setting for each seed, `seed` and the numbers after it, with no images held out.

    As many epochs as the winner took to its best one; with one_cycle all of the schedule's, which ends at rate zero.
    """
    chosen = space.suggest(FixedTrial(best.params), config)  # type: ignore[arg-type]
    epochs = chosen.training.epochs
    if chosen.training.schedule != "one_cycle":
        epochs = best.user_attrs.get("best_epoch", epochs)
    fixed: dict[str, Any] = {"data.validation_fraction": 0, "training.epochs": epochs}
    fixed |= {"training.patience": None, "training.checkpoint": False}
    seeds = [(chosen.seed + step) % 2**32 for step in range(space.search_of(config).refit)]
    return [override(chosen, {**fixed, "seed": seed}) for seed in seeds]


def refit(
    config: ExperimentConfig, best: FrozenTrial, data: FashionMNIST, parent: Run, tell: Callable[[str], None]
) -> Refitted:
    """Fit the winner again, each seed as a child run of `parent`; what an earlier session finished is not done again.

    Args:
        config: the search.
        best: the winner.
        data: the images of the search.
        parent: the search's run.
        tell: hears what is being done.

    Returns:
        One seed: its model. Several: the mean of their answers, as one network.
    """
    plan = settings(config, best)
    data = data.without_holdout()
    before = _earlier(parent, best, data)
    done = []
    for one in plan:
        tell(f"fitting the winner again on {len(data.train.images):,} images, seed {one.seed}")
        done.append(_run(one, data, best, parent, before, f"refit of trial {best.number}, seed {one.seed}"))
    if len(done) == 1:
        return done[0]
    nothing = {"model.warm_start": None, "model.frozen": 0, "model.averaging": "none"}  # the members have had it
    members = [f"runs:/{one.run_id}" for one in done]
    ensemble = override(plan[0], {**nothing, "model.members": members})
    tell(f"averaging the {len(done)} networks")
    return _run(ensemble, data, best, parent, before, f"refit of trial {best.number}, {len(done)} seeds")


def _run(
    config: ExperimentConfig,
    data: FashionMNIST,
    best: FrozenTrial,
    parent: Run,
    before: Mapping[tuple[str, str], Refitted],
    name: str,
) -> Refitted:
    if known := before.get((str(config.seed), str(list(config.model.members)))):
        finished.reattach(parent.client, known.run_id, parent.id)
        return known
    study = parent.client.get_run(parent.id).data.tags["fmnist.study"]
    tags = {"fmnist.study": study, Tag.REFIT_OF: best.user_attrs["run_id"]}
    run = runs.start_run(parent.client, "train", name, config.name, parent, more_tags=tags)
    with runs.closing(run):
        outcome = experiment_run.run_experiment(config, data, run, score_test=False)
    return Refitted(run.id, outcome.model_id, data)


def _earlier(parent: Run, best: FrozenTrial, data: FashionMNIST) -> dict[tuple[str, str], Refitted]:
    """The finished runs of an earlier session, by seed and members."""
    query = f"tags.`{Tag.REFIT_OF}` = '{best.user_attrs['run_id']}'"
    found = {}
    for run in parent.client.search_runs([parent.experiment_id], query):
        run_id, params, models = run.info.run_id, run.data.params, run.outputs.model_outputs if run.outputs else []
        if run.info.status == "FINISHED" and models:
            found[params["seed"], params["model.members"]] = Refitted(run_id, models[-1].model_id, data)
    return found
