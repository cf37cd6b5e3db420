"""Checkpoints of a run: the best epoch's model, and the states among its artifacts from which it is resumed."""

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras
from mlflow import MlflowClient, entities
from mlflow.exceptions import MlflowException

from fmnist_exp import compat
from fmnist_exp.config import files
from fmnist_exp.config.fields import flatten
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError
from fmnist_exp.experiment import conditions
from fmnist_exp.export import packaging, signing
from fmnist_exp.registry import lineage
from fmnist_exp.tracking import models as logged_models
from fmnist_exp.tracking import ownership, redact, store, transport
from fmnist_exp.tracking.names import Artifact, Metric, Tag
from fmnist_exp.tracking.run import Run, log_start
from fmnist_exp.tracking.spool import ids
from fmnist_exp.training import state as states
from fmnist_exp.training.events import Checkpoint, Epoch, FitCallback

log = logging.getLogger(__name__)

STATES = {Artifact.STATE.format(turn=turn) for turn in (0, 1)}
PAUSE = 30.0  # seconds of fitting between two states of a trial or a refit
HARMLESS = ("name", "data.source", "gate.")  # fields that do not change the fit; the images themselves are compared


class EpochLog(FitCallback):
    """Callback that logs every epoch's metrics to a run, with the epoch's number as step."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_epoch(self, epoch: Epoch) -> bool:  # noqa: D102
        ownership.check(self.run)
        self.run.log_metrics(epoch.metrics, step=epoch.number)
        return False


class CheckpointLog(FitCallback):
    """Callback that keeps a run's two newest states and, with `to_log`, logs the model of the best epoch.

    Args:
        run: the run.
        to_log: turns the network that is being fitted into one that can be loaded anywhere.
        pause: seconds of fitting between two states; with 0 every epoch leaves one.
    """

    def __init__(
        self, run: Run, to_log: Callable[[keras.Model], keras.Model] | None = None, pause: float = 0.0
    ) -> None:
        self.run = run
        self.to_log = to_log
        self.pause = pause
        self.kept = time.monotonic()  # the newest state, or, before the first one, the beginning
        self.states = 0  # that were kept
        self.epoch = 0

    def on_epoch(self, epoch: Epoch) -> bool:  # noqa: D102
        self.epoch = epoch.number
        return False

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:  # noqa: D102
        if self.to_log and checkpoint.is_best:
            write = partial(packaging.save_checkpoint, model=self.to_log(checkpoint.model))
            logged_models.log_checkpoint(self.run, write, self.epoch)
        if time.monotonic() - self.kept >= self.pause:
            keep(self.run, checkpoint.state())
            self.kept = time.monotonic()
            self.states += 1


def callbacks(run: Run, config: ExperimentConfig, to_log: Callable[[keras.Model], keras.Model]) -> list[FitCallback]:
    """Return the callbacks that log the epochs of a fit, and what is needed to resume it.

    A trial keeps a state now and then, so that it can be resumed at next to no cost when its worker or driver dies.
    """
    log: list[FitCallback] = [EpochLog(run)]
    if config.training.checkpoint:
        log.append(CheckpointLog(run, to_log))
    elif run.kind == "trial":
        log.append(CheckpointLog(run, pause=PAUSE))
    return log


@dataclass(frozen=True)
class Interrupted:
    """An interrupted run, with everything that is needed to resume it."""

    run_id: str
    config: ExperimentConfig
    epochs: int  # finished ones, as the newest complete state has them
    digests: Mapping[str, str]  # of the images, by split: training and validation
    score_test: bool  # whether the run would have been scored on the test set


def find(client: MlflowClient, run_id: str) -> Interrupted:
    """Return the interrupted run. Raises RequestError if there is none, it finished, or it has no complete state."""
    if not are_trusted():
        raise RequestError(f"--resume {run_id}: the states of runs are not signed, and {signing.TRUSTED_KEYS} is set")
    try:
        found = client.get_run(run_id)
    except MlflowException as error:
        if not transport.is_missing(error):
            raise
        raise RequestError(f"--resume {run_id}: {redact.first_line(error)}") from error
    if reason := _hindrance(found):
        raise RequestError(f"--resume {run_id}: {reason}")
    ownership.check_dead(client, found, f"--resume {run_id}: the run")
    state = newest_state(client, run_id)
    if state is None:
        if not STATES.isdisjoint(_checkpoint_files(client, run_id)):
            raise RequestError(f"--resume {run_id}: the checkpoints of the run are damaged; run the experiment again")
        reason = found.data.tags.get(Tag.ERROR, "")
        if "continued by" not in reason:  # so that an earlier release resumed it, in another run
            reason = "it ran without training.checkpoint=true, or was interrupted in its first epoch"
        raise RequestError(f"--resume {run_id}: the run has no state to resume from; {reason}")
    name = f"runs:/{run_id}/{Artifact.EXPERIMENT}"
    config = files.parse_logged(store.download_text(name), name)
    score_test = found.data.tags.get(Tag.SCORE_TEST) == "true"
    return Interrupted(run_id, config, len(state.epochs), lineage.digests(found), score_test)


def _hindrance(run: entities.Run) -> str:
    """Return why a run cannot be resumed, whatever its checkpoints are; empty if it can."""
    if run.info.lifecycle_stage != "active":
        return "the run was deleted"
    if run.data.tags.get(Tag.KIND) != "train":
        return "only runs of train, main, mlp and cnn can be resumed"
    return "the run finished; there is nothing left to do" if run.info.status == "FINISHED" else ""


def resumed_config(interrupted: Interrupted, overrides: Mapping[str, str]) -> ExperimentConfig:
    """Return the run's experiment with overrides. Raises RequestError if one would change the fit."""
    config = files.override(interrupted.config, overrides)
    before, after = flatten(interrupted.config), flatten(config)
    for name in overrides:
        if before.get(name) != after.get(name) and not name.startswith(HARMLESS):
            raise RequestError(f"--resume continues the same fit; --{name} would change it")
    return config


def check_data(interrupted: Interrupted, data: FashionMNIST) -> None:
    """Raise RequestError if these are not the images of the interrupted run."""
    for name, split in (("training", data.train), ("validation", data.validation)):
        expected = interrupted.digests.get(name, "")
        if split.digest != expected:
            raise RequestError(
                f"--resume {interrupted.run_id}: the {name} images are not the run's own"
                f" (digest {split.digest[:8]}, not {expected[:8]}); is data.source right?"
            )


def begin(run: Run, config: ExperimentConfig, data: FashionMNIST) -> states.State | None:
    """Log what is known before the first epoch, or return the state from which a resumed run continues.

    A resumed run records in which conditions of the fit this process differs from the one that logged its epochs. If it
    continues from a state, it also keeps what it logged when it began.
    """
    here = conditions.current()
    state = _state_of(run) if run.resumed else None
    remains = state or Metric.TRAIN_LOSS in (run.known_steps or ())  # an epoch of an earlier process is in the curve
    if remains and (different := conditions.differences(run.client.get_run(run.id).data.tags, here)):
        run.set_tags({Tag.RESUMED_UNDER: "; ".join(different)})
    if state is None:  # it is new, or was interrupted before its first state, and begins again
        log_start(run, config, data)
        run.set_tags(here)
    return state


def _state_of(run: Run) -> states.State | None:
    """Return the newest state of a resumed run, or None if there is none that this process may and can read."""
    if not are_trusted() or ids.is_local(run.id):  # or nobody has the states yet
        return None
    try:
        return newest_state(run.client, run.id)
    except Exception as error:  # another version wrote it, or the store does not answer, in words of its own
        log.warning("run %s begins again, since its state cannot be read: %s", run.id, redact.first_line(error))
        return None


def can_be_resumed(run: Run) -> bool:
    """Return True if the run has a state, complete or not, in the store."""
    if not run.delivered():
        return False
    return not _checkpoint_files(run.client, run.id).isdisjoint(STATES)


def finish(run: Run, used: Iterable[FitCallback]) -> None:
    """Delete the states that a run has, if any, since its fit with these callbacks has ended."""
    if run.resumed or any(isinstance(callback, CheckpointLog) and callback.states for callback in used):
        delete_states(run)


def delete_states(run: Run) -> None:
    """Delete the states of a run that no longer needs them; the best epoch's model stays."""
    run.delete_artifacts(STATES)


def are_trusted() -> bool:
    """Return whether this process may read states, which are not signed."""
    return not os.environ.get(signing.TRUSTED_KEYS)


def newest_state(client: MlflowClient, run_id: str) -> states.State | None:
    """Return the state with the most epochs among those that are complete."""
    with tempfile.TemporaryDirectory() as downloads:
        repository = _repository(client, run_id)
        paths = [repository.download_artifacts(p, downloads) for p in _checkpoint_files(client, run_id) & STATES]
        complete = [state for path in paths if (state := states.read(Path(path))) is not None]
    return max(complete, key=lambda state: len(state.epochs), default=None)


def _checkpoint_files(client: MlflowClient, run_id: str) -> set[str]:
    folder = Artifact.CHECKPOINT.rpartition("/")[0]
    return {entry.path for entry in _repository(client, run_id).list_artifacts(folder)}


def _repository(client: MlflowClient, run_id: str) -> Any:
    """Return the artifacts of a run; MLflow's client would search all models of the experiment for one of that name."""
    return compat.artifact_repository(client.get_run(run_id).info.artifact_uri, client.tracking_uri)


def keep(run: Run, state: states.State) -> None:
    """Log a state to one of two files in turn: while one of them is being written, the other one is complete."""
    with run.artifacts() as folder:
        state.write(_file(folder, Artifact.STATE.format(turn=len(state.epochs) % 2)))


def _file(folder: Path, path: str) -> Path:
    """Return the path of an artifact below `folder`, after making its folder."""
    file = folder / path
    file.parent.mkdir(exist_ok=True)
    return file
