"""Checkpoints among a run's artifacts: the best epoch's model, and the states from which a killed run is resumed."""

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fmnist_exp.config import files
from fmnist_exp.config.fields import flatten
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError
from fmnist_exp.export import signing
from fmnist_exp.registry import lineage
from fmnist_exp.tracking import redact, store
from fmnist_exp.tracking.names import Artifact, Tag
from fmnist_exp.tracking.run import Run, close
from fmnist_exp.training import state as states
from fmnist_exp.training.events import Checkpoint, Epoch, FitCallback

STATES = {Artifact.STATE.format(turn=turn) for turn in (0, 1)}
HARMLESS = ("name", "data.source", "gate.")  # fields that do not change the fit; the images themselves are compared


class EpochLog(FitCallback):
    """Callback that logs every epoch's metrics to a run, with the epoch's number as step."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_epoch(self, epoch: Epoch) -> bool:  # noqa: D102
        self.run.log_metrics(epoch.metrics, step=epoch.number)
        return False


class CheckpointLog(FitCallback):
    """Callback that keeps the best epoch's model and the two newest states among a run's artifacts."""

    def __init__(self, run: Run, to_log: Callable[[keras.Model], keras.Model]) -> None:
        self.run = run
        self.to_log = to_log  # turns the network that is being fitted into one that can be loaded anywhere

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:  # noqa: D102
        with self.run.artifacts() as folder:
            if checkpoint.is_best:
                self.to_log(checkpoint.model).save(_file(folder, Artifact.CHECKPOINT))
            _write(checkpoint.state(), folder)


@dataclass(frozen=True)
class Interrupted:
    """An interrupted run, with everything that is needed to resume it."""

    run: Run
    config: ExperimentConfig
    state: states.State  # the newest complete one
    digests: Mapping[str, str]  # of the images, by split: training and validation
    score_test: bool  # whether the run would have been scored on the test set


def find(client: MlflowClient, run_id: str) -> Interrupted:
    """Return the interrupted run. Raises RequestError if there is none, it finished, or it has no complete state."""
    if os.environ.get(signing.TRUSTED_KEYS):
        raise RequestError(f"--resume {run_id}: the states of runs are not signed, and {signing.TRUSTED_KEYS} is set")
    try:
        found = client.get_run(run_id)
    except MlflowException as error:
        raise RequestError(f"--resume {run_id}: {redact.first_line(error)}") from error
    state, reason = None, ""
    if found.info.lifecycle_stage != "active":
        reason = "the run was deleted"
    elif found.data.tags.get(Tag.KIND) != "train":
        reason = "only runs of train, main, mlp and cnn can be resumed"
    elif found.info.status == "FINISHED":
        reason = "the run finished; there is nothing left to do"
    elif (state := _newest_state(client, run_id)) is None:
        reason = found.data.tags.get(Tag.ERROR, "")
        if "continued by" not in reason:
            reason = "it ran without training.checkpoint=true, or was interrupted in its first epoch"
        reason = f"the run has no state to resume from; {reason}"
    if state is None:
        raise RequestError(f"--resume {run_id}: {reason}")
    name = f"runs:/{run_id}/{Artifact.EXPERIMENT}"
    config = files.parse_logged(store.download_text(name), name)
    score_test = found.data.tags.get(Tag.SCORE_TEST) == "true"
    return Interrupted(Run(client, run_id), config, state, lineage.digests(found), score_test)


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
                f"--resume {interrupted.run.id}: the {name} images are not the run's own"
                f" (digest {split.digest[:8]}, not {expected[:8]}); is data.source right?"
            )


def take_over(interrupted: Interrupted, run: Run) -> None:
    """Move the checkpoint of an interrupted run to `run`, which resumes it, and tag each run with the other's id."""
    old, client = interrupted.run, interrupted.run.client
    run.set_tags({Tag.RESUMES: old.id})
    with run.artifacts() as folder, tempfile.TemporaryDirectory() as downloads:
        if Artifact.CHECKPOINT in _checkpoint_files(client, old.id):
            best = client.download_artifacts(old.id, str(Artifact.CHECKPOINT), downloads)
            if zipfile.is_zipfile(best):  # otherwise the run was killed while it wrote the file
                shutil.copy(best, _file(folder, Artifact.CHECKPOINT))
        _write(interrupted.state, folder)
    found = client.get_run(old.id)
    reason = f"{found.data.tags.get(Tag.ERROR, 'interrupted')}; continued by run {run.id}"
    if found.info.status == "RUNNING":  # it was killed before it could close itself
        close(client, old.id, "KILLED", reason)
    else:
        old.set_tags({Tag.ERROR: reason})
    delete_states(old)


def can_be_resumed(run: Run) -> bool:
    """Return True if the run has a state, complete or not."""
    return not _checkpoint_files(run.client, run.id).isdisjoint(STATES)


def delete_states(run: Run) -> None:
    """Delete the states of a run that no longer needs them; the best epoch's model stays."""
    for path in _checkpoint_files(run.client, run.id) & STATES:
        run.delete_artifact(path)


def _newest_state(client: MlflowClient, run_id: str) -> states.State | None:
    """Return the state with the most epochs among those that are complete."""
    with tempfile.TemporaryDirectory() as downloads:
        paths = [client.download_artifacts(run_id, p, downloads) for p in _checkpoint_files(client, run_id) & STATES]
        complete = [state for path in paths if (state := states.read(Path(path))) is not None]
    return max(complete, key=lambda state: len(state.epochs), default=None)


def _checkpoint_files(client: MlflowClient, run_id: str) -> set[str]:
    folder = Artifact.CHECKPOINT.rpartition("/")[0]
    return {entry.path for entry in client.list_artifacts(run_id, folder)}


def _write(state: states.State, folder: Path) -> None:
    """Write to two state files in turn: while one of them is being written, the other one is complete."""
    state.write(_file(folder, Artifact.STATE.format(turn=len(state.epochs) % 2)))


def _file(folder: Path, path: str) -> Path:
    """Return the path of an artifact below `folder`, after making its folder."""
    file = folder / path
    file.parent.mkdir(exist_ok=True)
    return file
