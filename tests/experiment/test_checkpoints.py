"""Checkpoints among a run's artifacts, and runs that go on: through the functions, and as a user does it."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
from click.testing import CliRunner

from fmnist_exp.cli import main
from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError
from fmnist_exp.experiment import checkpoints
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.experiment import train as train_library
from fmnist_exp.experiment.outcome import Outcome
from fmnist_exp.experiment.train import TrainRequest
from fmnist_exp.tracking import orphans, store
from fmnist_exp.tracking import run as runs
from fmnist_exp.training.events import Checkpoint

PROJECT = Path(__file__).parents[2]
CONFIG = files.override(
    ExperimentConfig(),
    {
        "name": "tiny",
        "model.family": "mlp",
        "model.widths": [16],
        "training.epochs": 3,
        "training.batch_size": 50,
        "training.steps_per_execution": 1,
        "training.checkpoint": True,
        "training.precision": "float32",
    },
)
LOAD = "system/cpu_utilization_percentage"
PER_EPOCH = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate")


def train(data: FashionMNIST) -> tuple[str, Outcome]:
    with runs.closing(runs.start_run(store.connect(), "train", CONFIG.name, CONFIG.name)) as run:
        return run.id, experiment_run.run_experiment(CONFIG, data, run, score_test=False)


def names(run_id: str) -> set[str]:
    return {Path(entry.path).name for entry in mlflow.MlflowClient().list_artifacts(run_id, "checkpoint")}


def file_of(run_id: str, name: str) -> Path:
    return Path("mlruns") / "0" / run_id / "artifacts" / "checkpoint" / name


def histories(run_id: str) -> dict[str, list[tuple[int, float]]]:
    client = mlflow.MlflowClient()
    return {name: [(m.step, m.value) for m in client.get_metric_history(run_id, name)] for name in PER_EPOCH}


@pytest.fixture(scope="module")
def cut(shared_store, small) -> str:
    """The id of a run that was interrupted after its second epoch."""
    keep = checkpoints.CheckpointLog.on_checkpoint

    def keep_and_interrupt(log: checkpoints.CheckpointLog, checkpoint: Checkpoint) -> None:
        keep(log, checkpoint)
        if len(checkpoint.state().epochs) == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints.CheckpointLog, "on_checkpoint", keep_and_interrupt)
        result = train_library.train(TrainRequest(experiment=CONFIG, data=small))
    assert (result.status, result.resumable) == ("interrupted", True)
    return result.run_id


def checkpoint_of(client: mlflow.MlflowClient, run_id: str, folder: Path = Path()) -> int:
    """The step of the run's one checkpoint; the disk has the files of no other."""
    query = f"source_run_id = '{run_id}' and name = 'checkpoint'"
    (checkpoint,) = client.search_logged_models(["0"], filter_string=query)
    assert str(checkpoint.status) == "READY"
    outputs = client.get_run(run_id).outputs.model_outputs
    steps = {output.model_id: output.step for output in outputs if output.step}
    whole = [model for model in steps if any((folder / "mlruns/0/models" / model).rglob("*.keras"))]
    assert whole == [checkpoint.model_id]
    assert steps[checkpoint.model_id] == max(steps.values())
    return steps[checkpoint.model_id]


def test_a_run_that_is_cut_off_leaves_its_experiment_the_best_model_and_two_states(cut):
    assert {"state-0.npz", "state-1.npz"} <= names(cut)
    assert checkpoint_of(store.connect(), cut) in (1, 2)
    found = checkpoints.find(store.connect(), cut)
    assert found.config == CONFIG
    assert found.epochs == 2
    assert store.connect().get_run(cut).info.status == "KILLED"


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half", None])
def test_a_damaged_state_gives_way_to_the_one_before(cut, damage):
    newest = file_of(cut, "state-0.npz")  # after two epochs
    content = newest.read_bytes()
    newest.write_bytes(content[:-100] if damage is None else damage)
    assert checkpoints.find(store.connect(), cut).epochs == 1
    other = file_of(cut, "state-1.npz")
    kept = other.read_bytes()
    other.unlink()
    with pytest.raises(RequestError, match=r"no state to resume from; it ran without training\.checkpoint=true"):
        checkpoints.find(store.connect(), cut)
    other.write_bytes(kept)
    newest.write_bytes(content)


@pytest.mark.parametrize(("pause", "kept"), [(0.0, {"state-0.npz", "state-1.npz"}), (1000.0, set())])
def test_a_trial_keeps_a_state_now_and_then(shared_store, small, monkeypatch, pause, kept):
    monkeypatch.setattr(checkpoints, "TRIAL_SECONDS", pause)
    monkeypatch.setattr(checkpoints, "delete_states", lambda run: None)
    config = files.override(CONFIG, {"training.checkpoint": False, "training.epochs": 2})
    with runs.closing(runs.start_run(store.connect(), "trial", "trial", "tiny")) as run:
        experiment_run.run_experiment(config, small, run, score_test=False)
    assert names(run.id) == kept
    assert [output.step for output in store.connect().get_run(run.id).outputs.model_outputs] == [0]


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
    client = store.connect()
    trial = runs.start_run(client, "trial", "trial", "x")
    assert "only runs of train" in refused(trial.id)
    client.delete_run(trial.id)
    assert "was deleted" in refused(trial.id)


def test_a_run_goes_on_as_the_same_run(cut, small):
    unbroken, expected = train(small)
    client = store.connect()
    client.set_terminated(cut, "RUNNING")  # as SIGKILL leaves it
    client.delete_tag(cut, "fmnist.error")
    before = client.get_run(cut)
    client.log_metric(cut, LOAD, 50.0, step=7)
    client.log_metric(cut, "val_accuracy", 0.0, step=3)  # as if the epoch had been logged, and its state not yet kept
    assert checkpoints.find(client, cut).epochs == 2
    result = train_library.train(TrainRequest(experiment=train_library.Resume(cut, {}), data=small))
    outcome = result.outcomes["tiny"]
    assert result.run_id == cut
    assert {run.info.run_id for run in client.search_runs(["0"], "tags.`fmnist.kind` = 'train'")} == {cut, unbroken}
    assert histories(cut) == {
        **histories(unbroken),
        "val_accuracy": [*histories(unbroken)["val_accuracy"][:2], (3, 0.0)],
    }
    assert outcome.validation.metrics() == expected.validation.metrics()
    assert not {"state-0.npz", "state-1.npz"} & (names(cut) | names(unbroken))
    assert checkpoint_of(client, cut) == checkpoint_of(client, unbroken) == outcome.fit.best.number
    after = client.get_run(cut)
    assert after.info.status == "FINISHED"
    assert after.data.params == before.data.params
    assert after.data.tags["fmnist.resumptions"] == "1"
    assert {"fmnist.error", "fmnist.resumed_under", "fmnist.resumes"}.isdisjoint(after.data.tags)
    assert after.data.tags["fmnist.weights_sha256"] == client.get_run(unbroken).data.tags["fmnist.weights_sha256"]
    load = [metric.step for metric in client.get_metric_history(cut, LOAD)]
    assert load[:1] == [7]
    assert load[1:] == list(range(8, 7 + len(load)))
    best = mlflow.keras.load_model(f"runs:/{cut}/checkpoint")
    best.compile(metrics=["accuracy"], loss="sparse_categorical_crossentropy")  # weights only, no optimizer
    measured = best.evaluate(small.validation.images, small.validation.labels, verbose=0, return_dict=True)
    assert measured["accuracy"] == pytest.approx(outcome.validation.accuracy)
    assert "the run finished" in refused(cut)


def test_what_an_earlier_release_resumed_in_another_run_says_so(cut):
    client = store.connect()
    old = runs.start_run(client, "train", "old", "old")
    orphans.close(old, old.id, "KILLED", f"interrupted; continued by run {cut}")
    assert old.delivered()
    assert f"the run has no state to resume from; interrupted; continued by run {cut}" in refused(old.id)


def test_a_store_that_cannot_delete_keeps_the_states(cut, monkeypatch):
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    def refuse(self: Any, path: str) -> None:
        raise NotImplementedError

    monkeypatch.setattr(LocalArtifactRepository, "delete_artifacts", refuse)
    run = runs.start_run(store.connect(), "train", "x", "x")
    with run.artifacts() as folder:
        (folder / "checkpoint").mkdir()
        (folder / "checkpoint" / "state-0.npz").touch()
    checkpoints.delete_states(run)
    assert run.delivered()
    assert names(run.id) == {"state-0.npz"}


# as a user does it

COMMAND = [sys.executable, "-m", "fmnist_exp", "train"]
OPTIONS = "--experiment mlp --training.checkpoint true --training.epochs 6 --training.schedule constant"
OPTIONS += " --model.widths [16] --data.validation_fraction 0.5 --training.batch_size 500 --model.dropout 0.2"
OPTIONS += " --score_test true"


class User:
    """Stands in a folder with a store of its own, and starts commands there."""

    def __init__(self, folder: Path, new_database: Callable[[Path, str], str]) -> None:
        folder.mkdir()
        self.folder = folder
        self.uri = new_database(folder, str(folder / "mlruns"))
        self.client = mlflow.MlflowClient(self.uri)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        environment = {**clean, "PYTHONPATH": str(PROJECT), "MLFLOW_TRACKING_URI": self.uri}
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen([*COMMAND, *arguments], cwd=self.folder, env=environment, stdout=log, stderr=log)

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def run_after_epoch(self, count: int, process: subprocess.Popen[bytes]) -> str:
        """Wait until that epoch's metrics are there; the id of the run."""
        while process.poll() is None:
            for run in self.client.search_runs(["0"]):
                if len(self.client.get_metric_history(run.info.run_id, "val_accuracy")) >= count:
                    return str(run.info.run_id)
            time.sleep(0.05)
        raise AssertionError(self.log())

    def measured(self, run: Any) -> dict[str, list[tuple[int, float]]]:
        """Every metric's history, but for the times."""
        names = set(run.data.metrics) - {"fit_seconds", "images_per_second", "epoch_seconds"}
        names = {name for name in names if not name.startswith("system/")}
        histories = {name: self.client.get_metric_history(run.info.run_id, name) for name in names}
        return {name: [(entry.step, entry.value) for entry in history] for name, history in histories.items()}


def test_killed_and_continued_it_is_the_same_run(tmp_path, new_database, monkeypatch):
    patient, hasty = User(tmp_path / "patient", new_database), User(tmp_path / "hasty", new_database)
    with hasty.start(*OPTIONS.split()) as killed:
        old = hasty.run_after_epoch(3, killed)
        killed.kill()
    assert hasty.client.get_run(old).info.status == "RUNNING"
    with hasty.start("--resume", old) as resumed:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", patient.uri)  # meanwhile, here
        CliRunner().invoke(main, ["train", *OPTIONS.split()], catch_exceptions=False, standalone_mode=False)
        assert resumed.wait(300) == 0, hasty.log()
    assert re.search("resuming after epoch [2-6]", hasty.log())
    (resumed_run,) = hasty.client.search_runs(["0"])
    (whole,) = patient.client.search_runs(["0"])
    assert (resumed_run.info.run_id, resumed_run.info.status) == (old, "FINISHED")
    assert hasty.measured(resumed_run) == patient.measured(whole)
    assert resumed_run.data.params == whole.data.params
    assert resumed_run.data.tags["fmnist.resumptions"] == "1"
    assert "test_accuracy" in whole.data.metrics  # and in that which resumes, without being asked for again
    assert not any((hasty.folder / "mlruns" / "0" / old / "artifacts" / "checkpoint").iterdir())
    assert checkpoint_of(hasty.client, old, hasty.folder) == whole.data.metrics["best_epoch"]
