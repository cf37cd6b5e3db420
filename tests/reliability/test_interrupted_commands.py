"""Ctrl-C and SIGTERM at any moment, once and twice in a row: real processes of `train` and `tune`, real signals."""

from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any

import mlflow
import pytest
from support.searches import FinishedSearch
from support.stable import Done

INTERRUPTED = 130


class Place:
    """A folder with a store of its own, where commands run."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder = folder
        self.variables = {"MLFLOW_TRACKING_URI": uri}
        self.client = mlflow.MlflowClient(uri)

    def statuses(self) -> list[str]:
        return [run.info.status for run in self.client.search_runs(["0"])]

    def models(self) -> set[str]:
        return {str(model.status) for model in self.client.search_logged_models(["0"])}


@pytest.fixture
def place(tmp_path, new_database) -> Place:
    return Place(tmp_path, new_database(tmp_path, str(tmp_path / "mlruns")))


def was_interrupted(done: Done) -> None:
    assert done.code == INTERRUPTED, done.printed
    assert done.error == "interrupted"


def moments(quick: tuple[str, int], *slow: tuple[str, int]) -> list[Any]:
    """Return the parameters of the moments of an interrupt: the first is always tried, the others in slow tests."""
    return [pytest.param(*quick), *(pytest.param(*moment, marks=pytest.mark.slow) for moment in slow)]


@pytest.mark.parametrize("signals", [[SIGINT], [SIGINT, SIGTERM]], ids=["once", "twice"])
@pytest.mark.parametrize(
    ("function", "turn"),
    moments(
        ("mlflow.MlflowClient.set_terminated", 1),
        ("mlflow.MlflowClient.create_logged_model", 1),
        ("mlflow.MlflowClient.log_inputs", 1),
        ("fmnist_exp.training.callbacks.Recorder.on_train_batch_end", 2),
        ("mlflow.MlflowClient.log_artifacts", 2),
        ("fmnist_exp.export.packaging.save", 1),
        ("mlflow.MlflowClient.log_model_artifacts", 1),
        ("mlflow.MlflowClient.finalize_logged_model", 1),
        ("mlflow.MlflowClient.log_outputs", 1),
    ),
)
def test_train_closes_its_run_wherever_it_is_interrupted(commands, tiny, place, function, turn, signals):
    press = [function, turn, *signals]
    done = commands.run("train", "--experiment", str(tiny), folder=place.folder, press=press, **place.variables)
    was_interrupted(done)
    (status,) = place.statuses()
    ended = {"FINISHED", "KILLED"} if "set_terminated" in function else {"KILLED"}  # before or after the end
    assert status in ended
    assert place.models() <= {"READY", "FAILED"}


@pytest.mark.parametrize(
    ("function", "workers"),
    moments(
        ("fmnist_exp.training.callbacks.Recorder.on_train_batch_end", 1),
        ("optuna.Study.ask", 1),
        ("optuna.Study.tell", 1),
        ("optuna.Study.tell", 2),
        ("fmnist_exp.tuning.report.write.log", 1),
        ("fmnist_exp.registry.champions.register", 1),
    ),
)
def test_a_search_interrupted_twice_in_a_row_is_resumed(commands, tiny, place, monkeypatch, function, workers):
    words = ["tune", "--experiment", str(tiny), "--workers", str(workers), "--study", "cut", "--n_trials", "2"]
    press = [function, 1, SIGINT, SIGTERM]
    done = commands.run(*words, folder=place.folder, press=press, **place.variables)
    was_interrupted(done)
    assert "to continue: fmnist-exp tune " in done.printed
    assert "RUNNING" not in place.statuses()
    done = commands.run(*words, folder=place.folder, **place.variables)
    assert done.code == 0, done.printed
    assert "RUNNING" not in place.statuses()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place.variables["MLFLOW_TRACKING_URI"])
    found = FinishedSearch("cut", storage=f"sqlite:///{place.folder}/studies.db")
    found.check_nothing_is_open()
    assert len(found.counted) == 2, "no trial is lost"
