"""Fit the setting of a search's winner once more, in a run of its own below the parent run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlflow.entities import Run
from optuna.trial import FrozenTrial

from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.experiment import checkpoints
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.registry import lineage
from fmnist_exp.tracking import models as logged_models
from fmnist_exp.tracking import orphans, resumption
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking.names import Metric, Tag
from fmnist_exp.training.events import Epoch, FitCallback
from fmnist_exp.tuning.callback import SearchCallback
from fmnist_exp.tuning.record import TrialRecord
from fmnist_exp.tuning.session import Search

OVERTIME = 0.1  # of search.timeout, for which a final fit may go on when the limit is over: its speed was estimated


@dataclass(frozen=True)
class Fitted:
    """The model of another fit, and the images that it was fitted on."""

    run_id: str
    model_id: str
    data: FashionMNIST
    val_accuracy: float | None  # None without validation images


class Progress(FitCallback):
    """Callback that reports the progress of another fit, and stops a final fit that takes much longer than expected."""

    def __init__(self, search: Search, callback: SearchCallback, title: str, epochs: int, tag: Tag) -> None:
        self.search, self.callback, self.title, self.epochs = search, callback, title, epochs
        spare = OVERTIME * 60 * search.space.search.timeout
        self.end = search.end + spare if tag == Tag.FINAL_OF else math.inf

    def on_step(self, epoch: int, step: int, steps: int) -> None:  # noqa: D102
        self.callback.on_fit(self.title, epoch - 1 + step / steps, self.epochs)

    def on_epoch(self, epoch: Epoch) -> bool:  # noqa: D102
        is_late = epoch.number < self.epochs and self.search.clock() > self.end
        if is_late:
            self.callback.on_notice(
                f"the {self.title} was stopped after {epoch.number} of {self.epochs} epochs, since it took longer than"
                " its first steps had shown and search.timeout is over"
            )
        return is_late


def earlier(search: Search, best: FrozenTrial, tag: Tag) -> Sequence[Run]:
    """Return the runs, finished or not, that fitted this trial again for the purpose that the tag stands for."""
    client = search.parent.client
    origin = TrialRecord.of(best).in_store(client).run_id
    return list(client.search_runs([search.parent.experiment_id], f"tags.`{tag}` = '{origin}'"))


def fit(
    config: ExperimentConfig, data: FashionMNIST, search: Search, best: FrozenTrial, tag: Tag, callback: SearchCallback
) -> Fitted:
    """Fit this experiment on these images, unless that was done before, or continue it where it was interrupted.

    Args:
        config: the winner's experiment, with changes.
        data: the images.
        search: the search.
        best: the winner.
        tag: the tag that tells the purpose of the fit; its value is the id of the winner's run.
        callback: receives the progress.
    """
    parent, title = search.parent, _title(config, best, tag)
    members = str(list(config.model.members))
    fits = [run for run in earlier(search, best, tag) if run.data.params.get("model.members", members) == members]
    for run in fits:
        models = lineage.model_ids(run)
        if run.info.status == "FINISHED" and models and run.data.params.get("seed") == str(config.seed):
            orphans.reattach(parent, run.info.run_id)
            return Fitted(run.info.run_id, models[-1], data, run.data.metrics.get(Metric.BEST_VAL_ACCURACY))
    unfinished = [run.info.run_id for run in fits if run.info.status != "FINISHED" and run.info.run_name == title]
    if unfinished:
        own = resumption.take(parent.client, unfinished[0], {Tag.PARENT: parent.id})
    else:
        origin = TrialRecord.of(best).in_store(parent.client).run_id
        tags: dict[str, str] = {Tag.STUDY: search.study.study_name, tag: origin}
        own = runs.start_run(parent.client, "train", title, config.name, parent, more_tags=tags)
    with runs.closing(own):
        if unfinished:
            resumption.continue_curves(own)
        watching = [Progress(search, callback, title, config.training.epochs, tag)]
        states = checkpoints.CheckpointLog(own, pause=checkpoints.PAUSE)
        outcome = experiment_run.run_experiment(config, data, own, [*watching, states], score_test=False)
    model_id = logged_models.arrived(parent.client, outcome.model_id)
    return Fitted(own.id, model_id, data, outcome.validation.accuracy if outcome.validation else None)


def _title(config: ExperimentConfig, best: FrozenTrial, tag: Tag) -> str:
    if tag == Tag.FINAL_OF:
        return f"final fit of trial {best.number}"
    which = f"{len(config.model.members)} seeds" if config.model.members else f"seed {config.seed}"
    return f"refit of trial {best.number}, {which}"
