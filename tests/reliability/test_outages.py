"""The tracking server is away for a while, or for good, during a single fit and during a search with two workers."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import LoggedModelStatus
from support import standin
from support.experiments import NORMALIZED
from support.searches import FinishedSearch

from benchmarks.line import Fault, Line
from fmnist_exp.config import files
from fmnist_exp.experiment import train as training
from fmnist_exp.experiment.train import TrainRequest
from fmnist_exp.tracking.spool import folder, sync
from fmnist_exp.tracking.spool.process import sender
from fmnist_exp.training.events import Epoch, FitCallback
from fmnist_exp.tuning.callback import SearchCallback, TrialSummary

SECONDS = [3, *(pytest.param(seconds, marks=pytest.mark.slow) for seconds in (20, 60, 300))]
EPOCHS = 6


class Outage:
    """Closes the line once, and opens it after some seconds, when the work has gone on meanwhile."""

    def __init__(self, line: Line, seconds: float) -> None:
        self.line, self.seconds = line, seconds
        self.began = self.ended = 0.0  # milliseconds since the epoch, as MLflow's timestamps
        self.gone_on = threading.Event()

    def begin(self) -> None:
        if not self.began:
            self.line.close()
            self.began = time.time() * 1000
            self._timer = threading.Timer(self.seconds, self._end)
            self._timer.start()

    def _end(self) -> None:
        self.gone_on.wait(120)  # a loaded machine takes longer, and one that waits for its tracker for ever
        self.ended = time.time() * 1000
        self.line.open()

    def during(self, points: list[mlflow.entities.Metric]) -> list[int]:
        """Return the steps that were logged during the outage."""
        self._timer.join()
        return [point.step for point in points if self.began < point.timestamp < self.ended]


class Paced(FitCallback):
    """Makes epochs longer, and lets an outage begin after the first one."""

    def __init__(self, outage: Outage) -> None:
        self.outage = outage

    def on_epoch(self, epoch: Epoch) -> bool:
        self.outage.begin()
        if epoch.number == 4:  # two others lie between
            self.outage.gone_on.set()
        time.sleep(self.outage.seconds / (EPOCHS - 2))
        return False


@pytest.mark.parametrize("seconds", SECONDS)
def test_a_fit_goes_on_and_everything_arrives(line: Line, small, seconds):
    @contextmanager
    def display(*_: object) -> Iterator[FitCallback]:
        yield Paced(outage)

    outage = Outage(line, seconds)
    config = files.override(NORMALIZED, {"training.epochs": EPOCHS, "training.precision": "float32"})
    result = training.train(TrainRequest(experiment=config, data=small, display=display))
    assert result.status == "completed"
    assert not sender().drain(60)
    client = mlflow.MlflowClient()
    (run,) = client.search_runs(["0"], f"tags.`fmnist.spool_id` = '{_local(client, result.run_id)}'")
    assert run.info.status == "FINISHED"
    points = client.get_metric_history(run.info.run_id, "val_accuracy")
    assert [point.step for point in points] == list(range(1, EPOCHS + 1))
    assert len(outage.during(points)) >= 2, "the fit waits for its tracker"
    assert run.data.params["training.epochs"] == str(EPOCHS)
    assert client.list_artifacts(run.info.run_id)
    (model,) = client.search_logged_models(["0"], filter_string=f"source_run_id = '{run.info.run_id}'")
    assert model.status == LoggedModelStatus.READY
    assert not folder.root().exists()


def _local(client: mlflow.MlflowClient, run_id: str) -> str:
    """Return the local id of a run, whatever id is known."""
    return run_id if run_id.startswith("local-") else client.get_run(run_id).data.tags["fmnist.spool_id"]


class Follower(SearchCallback):
    """Lets an outage begin when the first trial has done an epoch."""

    def __init__(self, outage: Outage) -> None:
        self.outage = outage
        self.begun: set[int] = set()  # trials, during the outage
        self.retried: list[int] = []

    def on_trial(self, number: int, settings: object, epochs: int) -> None:
        if self.outage.began and not self.outage.ended:
            self.begun.add(number)

    def on_trial_end(self, trial: TrialSummary) -> None:
        if trial.number in self.begun:
            self.outage.gone_on.set()

    def on_progress(self, number: int, epochs: float) -> None:
        if epochs >= 1:
            self.outage.begin()

    def on_retry(self, number: int, reason: str) -> None:
        self.retried.append(number)


@pytest.mark.parametrize("seconds", SECONDS)
def test_a_search_goes_on_and_everything_arrives(line: Line, data, monkeypatch, seconds):
    monkeypatch.setenv("EPOCH_SECONDS", str(seconds / 10))  # for the workers: six trials of four epochs
    follower = Follower(Outage(line, seconds))
    config = standin.configure(6, search__pruner="none")
    result = standin.search(config, f"outage {seconds}", workers=2, data=data, callback=follower)
    assert result.status == "completed"
    assert not sender().drain(60)
    assert not sync.send(mlflow.MlflowClient()).left  # of workers that ended before the server was back for them
    found = FinishedSearch(f"outage {seconds}", result)
    assert [trial.state.name for trial in found.trials] == ["COMPLETE"] * 6
    assert follower.retried == []
    assert found.parent.info.status == "FINISHED"
    during = []
    for run in found.runs():
        assert run.info.status == "FINISHED"
        points = found.client.get_metric_history(run.info.run_id, "val_accuracy")
        assert [point.step for point in points] == [1, 2, 3, 4]
        during += follower.outage.during(points)
    assert len(found.runs()) == 6
    assert follower.begun, "no new trial began"
    assert len(during) >= 4, "the trials wait for the tracker"
    assert not folder.root().exists()


@pytest.mark.parametrize("name", ["train", pytest.param("tune", marks=pytest.mark.slow)])
def test_a_server_that_stays_away_leaves_the_spool_for_sync(line: Line, commands, tiny, tmp_path, name):
    variables = {"MLFLOW_TRACKING_URI": line.url, "FMNIST_EXP_SEND_SECONDS": "2"}
    line.inject(Fault.RESET, "", skip=20, times=None)  # from here on nothing passes
    options = ["--workers", "1", "--study", "away"] if name == "tune" else []
    done = commands.run(name, "--experiment", str(tiny), *options, folder=tmp_path, **variables)
    assert done.code == 0, done.printed
    assert "Traceback" not in done.printed
    assert "Retrying" not in done.printed
    assert "fmnist-exp sync" in done.printed
    assert list(Path("spool").iterdir())
    line.clear()
    sent = commands.run("sync", folder=tmp_path, **variables)
    assert sent.code == 0, sent.printed
    assert not Path("spool").exists()
    client = mlflow.MlflowClient()
    kind = {"train": "train", "tune": "trial"}[name]
    query = f"tags.`fmnist.kind` = '{kind}' and tags.`fmnist.experiment` = 'tiny'"
    runs = client.search_runs(["0"], query)
    assert len(runs) == {"train": 1, "tune": 2}[name]
    for run in runs:
        assert run.info.status == "FINISHED"
        assert [point.step for point in client.get_metric_history(run.info.run_id, "val_accuracy")] == [1]
        (model,) = client.search_logged_models(["0"], filter_string=f"source_run_id = '{run.info.run_id}'")
        assert model.status == LoggedModelStatus.READY
    again = commands.run("sync", folder=tmp_path, **variables)
    assert again.code == 0, again.printed
    assert "records sent" in again.printed
    assert again.printed.split("records sent")[1].split()[-1] == "0"
