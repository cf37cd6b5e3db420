"""Checkpoints among a run's artifacts: the best epoch's model, and the state from which a killed run goes on."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fmnist_exp.config import files
from fmnist_exp.config.fields import flatten
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.errors import RequestError
from fmnist_exp.registry import lineage
from fmnist_exp.tracking import redact, store
from fmnist_exp.tracking.run import Run
from fmnist_exp.training import state as training_state
from fmnist_exp.training.events import Checkpoint, Epoch, FitCallback
from fmnist_exp.training.state import State

if TYPE_CHECKING:
    import keras
    from mlflow import MlflowClient

    from fmnist_exp.data.dataset import FashionMNIST

if TYPE_CHECKING:
    import keras
    from mlflow import MlflowClient

    from fmnist_exp.data.dataset import FashionMNIST

FOLDER = "checkpoint"
BEST = "best.keras"
STATES = ("state-0.npz", "state-1.npz")  # written in turn: while one is being written the other is whole
HARMLESS = ("name", "data.source", "gate.")  # a continued fit is the same whatever these say; the data is compared


class CheckpointLog(FitCallback):
    """Keeps the best epoch's model and the newest states among a run's artifacts.

    `to_log` makes the network that is fitted into one that loads anywhere.
    """

    def __init__(self, run: Run, to_log: Callable[[keras.Model], keras.Model]) -> None:
        self.run = run
        self.to_log = to_log

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:  # noqa: D102
        with self.run.artifacts() as artifacts:
            folder = _folder(artifacts)
            if checkpoint.is_best:
                self.to_log(checkpoint.model).save(folder / BEST)
            _write(checkpoint.state(), folder)


@dataclass(frozen=True)
class Interrupted:
    """A run that was cut off, with all that is needed to go on."""

    run: Run
    config: ExperimentConfig
    state: State
    digests: Mapping[str, str]  # training, validation → hash of the images and labels


def find(client: MlflowClient, run_id: str) -> Interrupted:
    """The run to go on with.

    Raises:
        RequestError: there is no such run, it finished, or it has no state that is whole.
    """
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_run(run_id)
    except MlflowException as error:
        raise RequestError(f"--resume {run_id}: {redact.first_line(error)}") from error
    tags, status = found.data.tags, found.info.status
    if found.info.lifecycle_stage != "active":
        raise RequestError(f"--resume {run_id}: the run was deleted")
    if tags.get("fmnist.kind") != "train":
        raise RequestError(f"--resume {run_id}: not a run of train, main, mlp or cnn; only these can go on")
    if status == "FINISHED":
        raise RequestError(f"--resume {run_id}: the run finished; there is nothing to go on with")
    state = _newest(client, run_id)
    if state is None:
        ended = tags.get("fmnist.error", "")
        reason = "it was not run with training.checkpoint=true, or was cut off before its first epoch was done"
        raise RequestError(
            f"--resume {run_id}: the run has no state to go on from; {ended if 'continued by' in ended else reason}"
        )
    name = f"runs:/{run_id}/experiment.yaml"
    config = files.parse(store.download_text(name), name)
    return Interrupted(Run(client, run_id), config, state, lineage.digests(found))


def config_of(interrupted: Interrupted, overrides: Mapping[str, str]) -> ExperimentConfig:
    """The run's experiment with overrides that leave the fit as it is; RequestError for any other."""
    config = files.override(interrupted.config, overrides)
    before, after = flatten(interrupted.config), flatten(config)
    for name in overrides:
        if before.get(name) != after.get(name) and not name.startswith(HARMLESS):
            raise RequestError(f"--resume goes on with the same fit; --{name} would change it")
    return config


def check_data(interrupted: Interrupted, data: FashionMNIST) -> None:
    """Raise RequestError for other images than the run had: the fit could not come to the same end."""
    for name, split in (("training", data.train), ("validation", data.validation)):
        expected = interrupted.digests.get(name, "")
        if split.digest != expected:
            raise RequestError(
                f"--resume {interrupted.run.id}: the {name} images are not the run's own"
                f" (digest {split.digest[:8]}, not {expected[:8]}); is data.source right?"
            )


def take_over(interrupted: Interrupted, run: Run) -> None:
    """Let `run` go on with an interrupted one: its checkpoint moves over, and each run names the other."""
    old = interrupted.run
    run.set_tags({"fmnist.resumes": old.id})
    with run.artifacts() as artifacts, tempfile.TemporaryDirectory() as downloads:
        folder = _folder(artifacts)
        if BEST in _names(old.client, old.id):
            best = old.client.download_artifacts(old.id, f"{FOLDER}/{BEST}", downloads)
            if zipfile.is_zipfile(best):  # if not, it was being written when the run was killed: a new one will follow
                shutil.copy(best, folder / BEST)
        _write(interrupted.state, folder)
    info = old.client.get_run(old.id)
    reason = info.data.tags.get("fmnist.error", "interrupted")
    old.set_tags({"fmnist.error": f"{reason}; continued by run {run.id}"})
    if info.info.status == "RUNNING":  # it was killed so hard that it could not close itself
        old.status = "KILLED"
        old.close()
    discard(old)


def can_go_on(run: Run) -> bool:
    """Whether the run has a state; not whether it is whole."""
    return any(name in STATES for name in _names(run.client, run.id))


def discard(run: Run) -> None:
    """Delete the states of a run that needs them no more; the best epoch's model stays."""
    for name in _names(run.client, run.id):
        if name in STATES:
            run.delete_artifact(f"{FOLDER}/{name}")


def _folder(artifacts: Path) -> Path:
    (artifacts / FOLDER).mkdir()
    return artifacts / FOLDER


def _write(state: State, folder: Path) -> None:
    state.write(folder / STATES[len(state.epochs) % 2])


def _newest(client: MlflowClient, run_id: str) -> State | None:
    """The state after the most epochs among those that are whole."""
    states = []
    with tempfile.TemporaryDirectory() as downloads:
        for name in _names(client, run_id):
            if name in STATES:
                file = client.download_artifacts(run_id, f"{FOLDER}/{name}", downloads)
                states.append(training_state.read(Path(file)))
    whole = [state for state in states if state is not None]
    return max(whole, key=lambda state: len(state.epochs), default=None)


def _names(client: MlflowClient, run_id: str) -> list[str]:
    return [entry.path.rpartition("/")[2] for entry in client.list_artifacts(run_id, FOLDER)]


class EpochLog(FitCallback):
    """Writes every epoch's metrics to a run, at the epoch's number."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_epoch(self, epoch: Epoch) -> bool:  # noqa: D102
        self.run.log_metrics(epoch.metrics, step=epoch.number)
        return False
