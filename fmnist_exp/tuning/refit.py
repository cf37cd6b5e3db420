"""Refit the winner's setting on all 60,000 images, with one or several seeds, before it is registered.

No image is held out, so no choice can be made by validation: epochs, seeds and network are fixed before the refit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from fmnist_exp.config.files import override
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.config.search import Choice
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError
from fmnist_exp.experiment import checkpoints
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.registry import lineage
from fmnist_exp.tracking import models as logged_models
from fmnist_exp.tracking import orphans, resumption
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tuning.driver import Search
from fmnist_exp.tuning.record import TrialRecord
from fmnist_exp.tuning.space import SearchSpace


@dataclass(frozen=True)
class Refitted:
    """The model of a refit, and the images that it was fitted on."""

    run_id: str
    model_id: str
    data: FashionMNIST


def check(space: SearchSpace) -> None:
    """Raise RequestError if the winner might need validation images to be fitted again."""
    schedules = space.fields.get("training.schedule")
    possible = schedules.choices if isinstance(schedules, Choice) else [space.config.training.schedule]
    if space.search.refit and "plateau" in possible:
        raise RequestError(
            "search.refit leaves no validation images, which training.schedule=plateau needs; use one_cycle"
        )


def plan(space: SearchSpace, best: FrozenTrial) -> list[ExperimentConfig]:
    """Return the winner's experiment for each seed, counting up from `seed`, with no images held out.

    It trains for as many epochs as the winner needed to reach its best one. With one_cycle it trains for the whole
    schedule, because only the end of the schedule has small learning rates.
    """
    winner = space.apply(best.params)
    epochs = winner.training.epochs
    if winner.training.schedule != "one_cycle":
        epochs = TrialRecord.of(best).best_epoch or epochs
    fixed: dict[str, object] = {"data.validation_fraction": 0, "data.gate_fraction": 0, "training.epochs": epochs}
    fixed |= {"training.patience": None, "training.checkpoint": False}
    seeds = [(winner.seed + step) % 2**32 for step in range(space.search.refit)]
    return [override(winner, {**fixed, "seed": seed}) for seed in seeds]


def refit(search: Search, best: FrozenTrial, notify: Callable[[str], None]) -> Refitted:
    """Fit the winner again with each seed, as child runs of the parent run.

    A resumed search repeats no finished fit, and continues one that was interrupted in its run.

    Args:
        search: the search.
        best: the winner.
        notify: called with a sentence before each fit.

    Returns:
        The model of the one seed, or, of several seeds, the network that averages their predictions.
    """
    experiments, data = plan(search.space, best), search.data.without_holdout()
    fits = []
    for config in experiments:
        notify(f"fitting the winner again on {len(data.train.images):,} images, seed {config.seed}")
        fits.append(_run(config, data, best, search, f"refit of trial {best.number}, seed {config.seed}"))
    if len(fits) == 1:
        return fits[0]
    nothing = {"model.warm_start": None, "model.frozen": 0, "model.averaging": "none"}  # the members have had it
    members = [f"runs:/{fit.run_id}" for fit in fits]
    ensemble = override(experiments[0], {**nothing, "model.members": members})
    notify(f"averaging the {len(fits)} networks")
    return _run(ensemble, data, best, search, f"refit of trial {best.number}, {len(fits)} seeds")


def _run(config: ExperimentConfig, data: FashionMNIST, best: FrozenTrial, search: Search, name: str) -> Refitted:
    parent = search.parent
    winner = TrialRecord.of(best).in_store(parent.client)
    query = f"tags.`{Tag.REFIT_OF}` = '{winner.run_id}'"
    members = str(list(config.model.members))
    found = parent.client.search_runs([parent.experiment_id], query)
    fits = [fit for fit in found if fit.data.params.get("model.members", members) == members]
    for fit in fits:
        models = lineage.model_ids(fit)
        if fit.info.status == "FINISHED" and models and fit.data.params.get("seed") == str(config.seed):
            orphans.reattach(parent, fit.info.run_id)
            return Refitted(fit.info.run_id, models[-1], data)
    unfinished = [fit.info.run_id for fit in fits if fit.info.status != "FINISHED" and fit.info.run_name == name]
    if unfinished:
        run = resumption.take(parent.client, unfinished[0], {Tag.PARENT: parent.id})
    else:
        tags: dict[str, str] = {Tag.STUDY: search.study.study_name, Tag.REFIT_OF: winner.run_id}
        run = runs.start_run(parent.client, "train", name, config.name, parent, more_tags=tags)
    with runs.closing(run):
        if unfinished:
            resumption.continue_curves(run)
        states = checkpoints.CheckpointLog(run, pause=checkpoints.PAUSE)
        outcome = experiment_run.run_experiment(config, data, run, [states], score_test=False)
    model_id = logged_models.arrived(parent.client, outcome.model_id)
    return Refitted(run.id, model_id, data)
