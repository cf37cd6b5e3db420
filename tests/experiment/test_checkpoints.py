"""Checkpoints lie among a run's artifacts, and the run is resumed from them, or refused in one sentence."""

from pathlib import Path
from typing import Any

import mlflow
import pytest
from click.testing import CliRunner
from support.experiments import checkpoint_of

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
from fmnist_exp.tracking import orphans, resumption, store
from fmnist_exp.tracking import run as runs
from fmnist_exp.training.events import Checkpoint

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
    with pytest.raises(RequestError, match="the checkpoints of the run are damaged; run the experiment again"):
        checkpoints.find(store.connect(), cut)
    other.write_bytes(kept)
    newest.write_bytes(content)


@pytest.mark.parametrize(("pause", "kept"), [(0.0, {"state-0.npz", "state-1.npz"}), (1000.0, set())])
def test_a_trial_keeps_a_state_now_and_then(shared_store, small, monkeypatch, pause, kept):
    monkeypatch.setattr(checkpoints, "PAUSE", pause)
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


@pytest.mark.parametrize(("interrupted", "remains"), [("EpochLog", False), ("CheckpointLog", True)])
def test_a_trial_that_begins_again_under_other_conditions_says_so_if_an_epoch_remains(
    shared_store, small, interrupted, remains
):
    """A trial keeps no state in its first 30 seconds: its curve then has epochs of two processes."""

    def interrupt(self: Any, epoch: Any) -> bool:
        raise KeyboardInterrupt

    config = files.override(CONFIG, {"training.checkpoint": False})
    client = store.connect()
    run = runs.start_run(client, "trial", "trial", "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(getattr(checkpoints, interrupted), "on_epoch", interrupt)  # before or after an epoch is logged
        with pytest.raises(KeyboardInterrupt):
            experiment_run.run_experiment(config, small, run, score_test=False)
    run.close()
    threads = client.get_run(run.id).data.tags["fmnist.threads"]
    client.set_tag(run.id, "fmnist.threads", "64")
    again = resumption.take(client, run.id, {})
    resumption.continue_curves(again)
    experiment_run.run_experiment(config, small, again, score_test=False)
    again.close()
    tags = client.get_run(run.id).data.tags
    assert tags["fmnist.threads"] == threads
    assert tags.get("fmnist.resumed_under") == (f"its number of threads was 64, not {threads}" if remains else None)


def test_what_an_earlier_release_resumed_in_another_run_says_so(cut):
    client = store.connect()
    old = runs.start_run(client, "train", "old", "old")
    orphans.close(old, old.id, "KILLED", f"interrupted; continued by run {cut}")
    assert old.delivered()
    assert f"the run has no state to resume from; interrupted; continued by run {cut}" in refused(old.id)


def test_a_store_that_cannot_delete_keeps_the_states(cut, monkeypatch):
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    def refuse(self: Any, path: str) -> None:
        raise NotImplementedError  # stands for a store that cannot delete: MLflow answers so there

    monkeypatch.setattr(LocalArtifactRepository, "delete_artifacts", refuse)
    run = runs.start_run(store.connect(), "train", "x", "x")
    with run.artifacts() as folder:
        (folder / "checkpoint").mkdir()
        (folder / "checkpoint" / "state-0.npz").touch()
    checkpoints.delete_states(run)
    assert run.delivered()
    assert names(run.id) == {"state-0.npz"}
