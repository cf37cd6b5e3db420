"""Checkpoints among a run's artifacts, and runs that go on: through the functions, and as a user does it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import keras
import mlflow
import pytest
from click.testing import CliRunner

from fmnist_exp import checkpoints, connection, experiment, experiment_files, tracking, training
from fmnist_exp.cli import main
from fmnist_exp.config import ExperimentConfig
from fmnist_exp.data import FashionMNIST
from fmnist_exp.errors import RequestError
from fmnist_exp.experiment import Outcome
from fmnist_exp.training import Listener
from fmnist_exp.training_state import Checkpoint

PROJECT = Path(__file__).parent.parent
CONFIG = experiment_files.override(
    ExperimentConfig(),
    {
        "name": "tiny",
        "model.family": "mlp",
        "model.widths": [16],
        "training.epochs": 3,
        "training.batch_size": 50,
        "training.steps_per_execution": 1,
        "training.checkpoint": True,
    },
)
PER_EPOCH = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")


class Cut(Listener):
    """Cuts a run off once two epochs are kept."""

    def __init__(self) -> None:
        self.kept = 0

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        self.kept += 1
        if self.kept == 2:
            raise KeyboardInterrupt


def train(data: FashionMNIST, *listeners: Listener, **options: Any) -> tuple[str, Outcome | None]:
    outcome = None
    run = tracking.start_run(connection.connect(), "train", CONFIG.name, CONFIG.name)
    with contextlib.suppress(KeyboardInterrupt), tracking.closing(run):
        outcome = experiment.run_experiment(CONFIG, data, run, listeners, score_test=False, **options)
    return run.id, outcome


def names(run_id: str) -> set[str]:
    return {Path(entry.path).name for entry in mlflow.MlflowClient().list_artifacts(run_id, "checkpoint")}


def file_of(run_id: str, name: str) -> Path:
    return Path("mlruns") / "0" / run_id / "artifacts" / "checkpoint" / name


def histories(run_id: str) -> dict[str, list[tuple[int, float]]]:
    client = mlflow.MlflowClient()
    return {name: [(m.step, m.value) for m in client.get_metric_history(run_id, name)] for name in PER_EPOCH}


@pytest.fixture(scope="module")
def cut(shared_store, small) -> str:
    """A run that was interrupted after its second epoch."""
    return train(small, Cut())[0]


def test_a_run_that_is_cut_off_leaves_its_experiment_the_best_model_and_two_states(cut):
    assert names(cut) == {"best.keras", "state-0.npz", "state-1.npz"}
    found = checkpoints.find(connection.connect(), cut)
    assert found.config == CONFIG
    assert len(found.state.epochs) == 2
    assert connection.connect().get_run(cut).info.status == "KILLED"


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half", None])
def test_a_damaged_state_gives_way_to_the_one_before(cut, damage):
    newest = file_of(cut, "state-0.npz")  # after two epochs
    content = newest.read_bytes()
    newest.write_bytes(content[:-100] if damage is None else damage)
    assert len(checkpoints.find(connection.connect(), cut).state.epochs) == 1
    other = file_of(cut, "state-1.npz")
    kept = other.read_bytes()
    other.unlink()
    with pytest.raises(RequestError, match=r"no state to go on from; it was not run with training\.checkpoint=true"):
        checkpoints.find(connection.connect(), cut)
    other.write_bytes(kept)
    newest.write_bytes(content)


def refused(*arguments: str) -> str:
    with pytest.raises(RequestError) as error:
        CliRunner().invoke(main, ["train", "--resume", *arguments], catch_exceptions=False, standalone_mode=False)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_go_on_is_refused(cut, small, data):
    before = len(mlflow.search_runs(["0"]))
    assert "not found" in refused("0" * 32)
    assert "--training.epochs would change it" in refused(cut, "--training.epochs", "9")
    assert "did you mean 'training.epochs'" in refused(cut, "--training.epoch", "9")
    assert "leave --experiment out" in refused(cut, "--experiment", "mlp")
    # the run had some hundred images, the command finds all
    assert "training images are not the run's own" in refused(cut, "--training.epochs", "3", "--name", "another")
    assert len(mlflow.search_runs(["0"])) == before
    client = connection.connect()
    trial = tracking.start_run(client, "trial", "trial", "x")
    assert "not a run of train" in refused(trial.id)
    client.delete_run(trial.id)
    assert "was deleted" in refused(trial.id)


def test_a_run_goes_on_and_ends_complete_in_itself(cut, small):
    unbroken, expected = train(small)
    client = connection.connect()
    client.set_terminated(cut, "RUNNING")  # as SIGKILL leaves it
    client.delete_tag(cut, "fmnist.error")
    interrupted = checkpoints.find(client, cut)
    checkpoints.check_data(interrupted, small)
    run = tracking.start_run(client, "train", CONFIG.name, CONFIG.name)
    with tracking.closing(run):
        checkpoints.take_over(interrupted, run)
        assert (names(cut), names(run.id)) == ({"best.keras"}, {"best.keras", "state-0.npz"})
        fit = partial(training.fit, start=interrupted.state)
        outcome = experiment.run_experiment(CONFIG, small, run, score_test=False, fit=fit)
    assert histories(run.id) == histories(unbroken)
    assert outcome.validation == expected.validation
    assert names(run.id) == names(unbroken) == {"best.keras"}
    old, new = client.get_run(cut), client.get_run(run.id)
    assert (old.info.status, new.info.status) == ("KILLED", "FINISHED")
    assert old.data.tags["fmnist.error"] == f"interrupted; continued by run {run.id}"
    assert new.data.tags["fmnist.resumes"] == cut
    assert new.data.metrics["fit_seconds"] > interrupted.state.seconds
    assert f"the run has no state to go on from; interrupted; continued by run {run.id}" in refused(cut)
    assert "the run finished" in refused(run.id)


def test_the_best_epochs_file_is_the_model(shared_store, small):
    run_id, outcome = train(small)
    best = keras.saving.load_model(file_of(run_id, "best.keras"))
    measured = best.evaluate(small.validation.images, small.validation.labels, verbose=0, return_dict=True)
    assert measured["accuracy"] == pytest.approx(outcome.validation.accuracy)


def test_without_checkpoints_nothing_is_kept(shared_store, small, monkeypatch):
    monkeypatch.setattr("test_checkpoints.CONFIG", experiment_files.override(CONFIG, {"training.checkpoint": False}))
    assert names(train(small)[0]) == set()


def test_a_store_that_cannot_delete_keeps_the_states(cut, monkeypatch):
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    def refuse(self: Any, path: str) -> None:
        raise NotImplementedError

    monkeypatch.setattr(LocalArtifactRepository, "delete_artifacts", refuse)
    run = tracking.start_run(connection.connect(), "train", "x", "x")
    with run.artifacts() as folder:
        (folder / "checkpoint").mkdir()
        (folder / "checkpoint" / "state-0.npz").touch()
    checkpoints.discard(run)
    assert names(run.id) == {"state-0.npz"}


# as a user does it

COMMAND = [sys.executable, "-m", "fmnist_exp", "train"]
OPTIONS = "--experiment mlp --training.checkpoint true --training.epochs 6 --training.schedule constant"
OPTIONS += " --model.widths [16] --data.validation_fraction 0.5 --training.batch_size 500 --model.dropout 0.2"


def start(folder: Path, uri: str, *arguments: str) -> subprocess.Popen[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment = {**clean, "PYTHONPATH": str(PROJECT), "MLFLOW_TRACKING_URI": uri}
    log = (folder / "log").open("a")
    return subprocess.Popen([*COMMAND, *arguments], cwd=folder, env=environment, stdout=log, stderr=log, text=True)


def wait_for_epochs(client: mlflow.MlflowClient, process: subprocess.Popen[str], count: int) -> str:
    """Until the only run of the store has a state after that many epochs."""
    for _ in range(600):
        assert process.poll() is None
        for run in client.search_runs(["0"]):
            if len(client.get_metric_history(run.info.run_id, "val_accuracy")) >= count:
                return str(run.info.run_id)
        time.sleep(0.05)
    raise AssertionError("no epoch within half a minute")


def test_killed_and_continued_it_is_the_same_run(tmp_path, new_database, monkeypatch):
    folders = {name: tmp_path / name for name in ("unbroken", "killed")}
    uris = {}
    for name, folder in folders.items():
        folder.mkdir()
        uris[name] = new_database(folder, str(folder / "mlruns"))
    unbroken = start(folders["unbroken"], uris["unbroken"], *OPTIONS.split())
    killed = start(folders["killed"], uris["killed"], *OPTIONS.split())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uris["killed"])
    client = mlflow.MlflowClient(uris["killed"])
    old = wait_for_epochs(client, killed, 3)
    killed.send_signal(signal.SIGKILL)
    killed.wait(30)
    assert client.get_run(old).info.status == "RUNNING"
    assert start(folders["killed"], uris["killed"], "--resume", old).wait(120) == 0, (
        folders["killed"] / "log"
    ).read_text()
    assert unbroken.wait(120) == 0, (folders["unbroken"] / "log").read_text()
    assert re.search(rf"going on after epoch [23] of run {old}", (folders["killed"] / "log").read_text())
    (new,) = client.search_runs(["0"], f"tags.`fmnist.resumes` = '{old}'")
    (whole,) = mlflow.MlflowClient(uris["unbroken"]).search_runs(["0"])
    assert (client.get_run(old).info.status, new.info.status) == ("KILLED", "FINISHED")
    times = {"fit_seconds", "images_per_second", "epoch_seconds"}
    assert {k: v for k, v in new.data.metrics.items() if k not in times} == {
        k: v for k, v in whole.data.metrics.items() if k not in times
    }
    expected = mlflow.MlflowClient(uris["unbroken"])
    for name in PER_EPOCH:
        assert [(m.step, m.value) for m in client.get_metric_history(new.info.run_id, name)] == [
            (m.step, m.value) for m in expected.get_metric_history(whole.info.run_id, name)
        ]
    kept = folders["killed"] / "mlruns" / new.info.run_id / "artifacts" / "checkpoint"
    kept = kept if kept.exists() else folders["killed"] / "mlruns" / "0" / new.info.run_id / "artifacts" / "checkpoint"
    assert [file.name for file in kept.iterdir()] == ["best.keras"]
    assert keras.saving.load_model(kept / "best.keras").count_params() == new.data.metrics["parameters"]
