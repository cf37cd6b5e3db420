"""A run of `train` that was killed and is resumed by its command has the numbers of one that nobody killed."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
from click.testing import CliRunner
from support.experiments import checkpoint_of

from fmnist_exp.cli import main
from fmnist_exp.tracking import resumption, store
from fmnist_exp.tracking import run as runs

PROJECT = Path(__file__).parents[2]
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


def test_results_that_were_logged_before_the_kill_are_there_once(shared_store):
    """A process may be killed between its last metrics and the end of its run."""
    client = store.connect()
    models = [client.create_logged_model("0", name=name) for name in ("first", "second")]
    run = runs.start_run(client, "trial", "trial", "tiny")
    results = {"best_val_accuracy": 0.9}
    run.log_metrics({**results, "fit_seconds": 3.0}, 0, models[0].model_id)
    run.release()
    again = resumption.take(client, run.id, {})
    resumption.continue_curves(again)
    again.log_metrics({**results, "fit_seconds": 4.0}, 0, models[1].model_id)
    again.log_metrics(results)
    again.close()
    histories = {name: client.get_metric_history(run.id, name) for name in ("best_val_accuracy", "fit_seconds")}
    assert {name: [point.value for point in found] for name, found in histories.items()} == {
        "best_val_accuracy": [0.9],
        "fit_seconds": [3.0, 4.0],  # each process measured its own
    }
    for model in models:
        found = client.get_logged_model(model.model_id).metrics or []
        assert {metric.key for metric in found} == {"best_val_accuracy", "fit_seconds"}
