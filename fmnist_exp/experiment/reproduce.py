"""Run an earlier run again under the same conditions, and compare every number of its fit."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run as StoredRun
from mlflow.exceptions import MlflowException

from fmnist_exp.backend import setup
from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data import dataset
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError
from fmnist_exp.experiment import conditions, resolve
from fmnist_exp.experiment.run import run_experiment
from fmnist_exp.experiment.train import Display
from fmnist_exp.registry import lineage
from fmnist_exp.tracking import access, redact, store, transport
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking.names import Artifact, Metric, Tag
from fmnist_exp.training.events import Epoch, FitCallback
from fmnist_exp.training.fit import Fit

COMPARED = (Metric.TRAIN_LOSS, Metric.TRAIN_ACCURACY, Metric.VAL_LOSS, Metric.VAL_ACCURACY, Metric.LEARNING_RATE)
Curves = Mapping[str, Mapping[int, float]]  # metric → epoch → value


@dataclass(frozen=True)
class Reproduction:
    """A run that was run again, and how far its numbers are from those of the original."""

    run_id: str
    epochs: int
    difference: float  # the largest one of a metric in an epoch
    where: str  # the metric and the epoch
    same_weights: bool

    @property
    def identical(self) -> bool:
        """True if every metric of every epoch and all weights are the same, to the last bit."""
        return self.same_weights and self.difference == 0

    def sentence(self, original: str) -> str:
        """Return the result in one sentence."""
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        if self.identical:
            return f"Identical to run {original}: every metric of {epochs}, and all weights."
        if self.difference:
            return f"Different from run {original}: the largest difference is {self.difference:.3g}, in {self.where}."
        return f"Different from run {original}: the metrics of {epochs} are identical, the weights are not."


def reproduce(run_id: str, display: Display, *, force: bool = False, new_run_id: str | None = None) -> Reproduction:
    """Run a finished run again and compare both.

    It computes with as many threads as the original did, so call it before the first computation of the process.

    Args:
        run_id: Id of the original, a single run or a trial.
        display: Shows the fit.
        force: Run it also if a condition differs that cannot be met here.
        new_run_id: Id of an existing run to log to; None starts a new one.

    Raises:
        RequestError: The run cannot be run again here; the message names each condition that cannot be met.
    """
    client = access.connect()
    original = _find(client, run_id)
    setup.start(int(original.data.tags[Tag.THREADS]))
    config, data = _experiment(client, original)
    unmet = _unmet(client, original, data)
    if unmet and not force:
        raise RequestError(f"run {run_id} cannot be reproduced here: {'; '.join(unmet)} (--force true runs it anyway)")
    expected = _curves(client, run_id)
    epochs = max(expected[Metric.TRAIN_LOSS], default=0)
    tags: dict[str, str] = {Tag.REPRODUCES: run_id}
    name = f"{original.info.run_name} again"
    run = runs.start_run(client, "train", name, config.name, run_id=new_run_id, more_tags=tags)
    with runs.closing(run):
        with display(config.name, epochs, 0) as callback:
            outcome = run_experiment(config, data, run, [_StopAfter(epochs), callback], score_test=False)
        result = _compare(original, run, outcome.fit, expected)
        run.set_tags({Tag.REPRODUCED: result.sentence(run_id)})
    return result


@dataclass
class _StopAfter(FitCallback):
    """Callback that stops the fit where the original's was stopped, by a pruner or a time limit."""

    epochs: int

    def on_epoch(self, epoch: Epoch) -> bool:
        return epoch.number >= self.epochs


def _find(client: MlflowClient, run_id: str) -> StoredRun:
    try:
        found = client.get_run(run_id)
    except MlflowException as error:
        if not transport.is_missing(error):
            raise
        raise RequestError(f"run {run_id}: {redact.first_line(error)}") from error
    reason = ""
    if found.data.tags.get(Tag.KIND) not in ("train", "trial"):
        reason = "only runs of train, main, mlp and cnn, trials and refits can be reproduced"
    elif not found.data.tags.get(Tag.THREADS, "").isdigit():
        reason = "it does not say with how many threads it computed, so an earlier release made it, or none of ours"
    elif Tag.WEIGHTS_DIGEST not in found.data.tags:
        reason = "its fit did not end; `fmnist-exp train --resume` can resume it if it has a checkpoint"
    if reason:
        raise RequestError(f"run {run_id} cannot be reproduced: {reason}")
    return found


def _experiment(client: MlflowClient, original: StoredRun) -> tuple[ExperimentConfig, FashionMNIST]:
    address = f"runs:/{original.info.run_id}/{Artifact.EXPERIMENT}"
    config = files.parse_logged(store.download_text(address), address)
    data = dataset.load(config.data, config.seed)
    if Tag.REFIT_OF in original.data.tags:
        data = data.without_holdout()
    return resolve.resolve(config, data, client).config, data


def _unmet(client: MlflowClient, original: StoredRun, data: FashionMNIST) -> list[str]:
    """Return a phrase for each condition that differs here, or differed in the run that the original resumed."""
    here = conditions.current()
    unmet = conditions.differences(original.data.tags, here)
    if original.data.tags.get(Tag.CODE) != here[Tag.CODE]:
        dirty = " with uncommitted changes" if original.data.tags.get(Tag.DIRTY) == "true" else ""
        unmet.append(f"its Git commit was {original.data.tags.get(Tag.GIT_COMMIT, 'not recorded')}{dirty}")
    digests = lineage.digests(original)
    for purpose, split in (("training", data.train), ("validation", data.validation)):
        if digests.get(purpose) != (split.digest if len(split.images) else None):
            unmet.append(f"its {purpose} images were others than those from {data.source}")
    if different := original.data.tags.get(Tag.RESUMED_UNDER):
        unmet.append(f"it was resumed under other conditions: {different}")
    if earlier := original.data.tags.get(Tag.RESUMES):  # of an earlier release, which resumed a run in a new one
        begun = client.get_run(earlier).data.tags
        phrases = conditions.differences(begun, original.data.tags)
        unmet += [f"it resumed run {earlier}: {phrase}" for phrase in phrases]
    return unmet


def _curves(client: MlflowClient, run_id: str) -> Curves:
    return {
        str(name): {entry.step: entry.value for entry in client.get_metric_history(run_id, str(name))}
        for name in COMPARED
    }


def _compare(original: StoredRun, run: runs.Run, fit: Fit, expected: Curves) -> Reproduction:
    found = {str(name): {e.number: e.metrics[name] for e in fit.epochs if name in e.metrics} for name in COMPARED}
    differences = [
        (_distance(values.get(epoch), found[name].get(epoch)), f"{name} of epoch {epoch}")
        for name, values in expected.items()
        for epoch in values.keys() | found[name].keys()
    ]
    difference, where = max(differences, default=(0.0, ""))
    same = run.tag(Tag.WEIGHTS_DIGEST) == original.data.tags[Tag.WEIGHTS_DIGEST]
    return Reproduction(run.id, len(expected[Metric.TRAIN_LOSS]), difference, where if difference else "", same)


def _distance(one: Any, other: Any) -> float:
    return math.inf if one is None or other is None else abs(one - other)
