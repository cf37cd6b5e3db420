"""Tests of whole runs and searches on the real images, started as a user does, with `mlflow run` and `fmnist-exp`."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from support.experiments import ARTIFACTS

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the user works, with the embedded store."""
    return tmp_path_factory.mktemp("user")


@pytest.fixture(scope="module")
def environment(folder: Path) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    # `python` is the interpreter of the tests, as in an activated environment
    path = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
    return {**clean, "PATH": path, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}


@pytest.fixture(scope="module")
def client(environment: dict[str, str]) -> Iterator[MlflowClient]:
    """The client of the user's store. MLflow itself also looks there for the models of a run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", environment["MLFLOW_TRACKING_URI"])
        yield MlflowClient()


def mlflow_run(entry: str, folder: Path, environment: dict[str, str], **parameters: object) -> str:
    options = [word for key, value in parameters.items() for word in ("-P", f"{key}={value}")]
    command = [sys.executable, "-m", "mlflow", "run", str(PROJECT), "-e", entry, "--env-manager", "local", *options]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def artifacts(client: MlflowClient, run_id: str, path: str = "") -> set[str]:
    found = set()
    for entry in client.list_artifacts(run_id, path):
        found |= artifacts(client, run_id, entry.path) if entry.is_dir else {entry.path}
    return found


def test_mlp(folder, environment, client):
    parameters = {"training.epochs": 2, "training.learning_rate": "5e-4", "model.widths": "[64]", "score_test": "true"}
    mlflow_run("mlp", folder, environment, **parameters)
    (run,) = client.search_runs(["0"])
    assert run.info.status == "FINISHED"
    assert run.data.tags["fmnist.kind"] == "train"
    # `mlflow run` logs its parameters itself, quoted for the shell, and MLflow does not let them change
    assert run.data.params["model.widths"] == "'[64]'"
    assert run.data.params["training.learning_rate"] == "5e-4"
    assert run.data.params["training.batch_size"] == "1024"
    assert run.data.metrics["test_accuracy"] > 0.7
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "val_accuracy")] == [1, 2]
    assert artifacts(client, run.info.run_id) >= ARTIFACTS
    assert {tag.value for entry in run.inputs.dataset_inputs for tag in entry.tags} == {
        "training",
        "validation",
        "gate",
        "test",
    }


def test_tune(folder, environment, client):
    small = {"n_trials": 2, "experiment": "tune_mlp", "training.epochs": 1, "study": "two"}
    printed = mlflow_run("tune", folder, environment, **small, storage=f"sqlite:///{folder}/studies.db")
    assert "registered fashion-mnist version 1 (challenger" in printed
    (parent,) = client.search_runs(["0"], "tags.`fmnist.kind` = 'tune'")
    trials = client.search_runs(["0"], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert len(trials) == 2
    for trial in trials:
        state = trial.data.tags["fmnist.trial_state"]
        assert trial.info.status == {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}[state]
        assert artifacts(client, trial.info.run_id) >= ARTIFACTS
        assert len(trial.outputs.model_outputs) == 1
    scored = [trial for trial in trials if "test_accuracy" in trial.data.metrics]
    assert len(scored) == 1
    assert {"study/trials.csv", "study/figures.html", "study/history.png"} <= artifacts(client, parent.info.run_id)
    version = client.get_model_version_by_alias("fashion-mnist", "challenger")
    assert version.run_id == scored[0].info.run_id
    assert float(version.tags["test_accuracy"]) == pytest.approx(scored[0].data.metrics["test_accuracy"])


def test_the_version_answers(client, data):
    table = mlflow.pyfunc.load_model("models:/fashion-mnist@challenger").predict(data.test.images[:1000])
    assert (table["label"] == data.test.labels[:1000]).mean() > 0.75
    assert list(table.columns) == ["label", "name", "probability", *(f"p{label}" for label in range(10))]


def command_line(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fmnist_exp", *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def last_command(printed: str) -> list[str]:
    """Return the arguments of the last command in the output."""
    return shlex.split(
        [line for line in printed.splitlines() if ": fmnist-exp " in line][-1].partition("fmnist-exp")[2]
    )


@pytest.mark.usefixtures("ctrl_c_heeded")
def test_ctrl_c_closes_the_runs_and_the_printed_command_resumes_the_study(folder, environment, client):
    command = ["tune", "--experiment", "tune_mlp", "--n_trials", "50", "--storage", f"sqlite:///{folder}/studies.db"]
    command += ["--training.epochs", "2", "--study", "cut"]
    with subprocess.Popen(
        [sys.executable, "-m", "fmnist_exp", *command],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("trial   0"))
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        printed = process.stdout.read()
        assert process.wait(60) == 130, printed
    study_runs = client.search_runs(["0"], "tags.`fmnist.study` = 'cut'")
    assert {run.info.status for run in study_runs} <= {"FINISHED", "KILLED"}
    resume = last_command(printed)
    assert sorted(resume) == sorted(command)
    done = command_line(folder, environment, *resume, "--n_trials", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resuming the study" in done.stdout
    assert {run.info.status for run in client.search_runs(["0"])} <= {"FINISHED", "KILLED"}


def test_a_failed_search_prints_the_command_that_resumes_it(folder, environment):
    command = ["tune", "--experiment", "tune_mlp", "--timeout", "1e-06", "--workers", "1", "--study", "brief"]
    done = command_line(folder, environment, *command)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "search.timeout: 1e-06 minutes" in done.stderr
    assert last_command(done.stdout) == command
