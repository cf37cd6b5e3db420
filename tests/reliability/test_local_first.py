"""Fits and searches go on without their tracking server, and everything arrives when it is back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.entities import LoggedModelStatus
from support import searches, services
from support.experiments import ARTIFACTS, NORMALIZED

from fmnist_exp.config import files
from fmnist_exp.experiment import baseline
from fmnist_exp.experiment import train as training
from fmnist_exp.experiment.train import TrainRequest, TrainResult
from fmnist_exp.registry import versions
from fmnist_exp.tracking import store
from fmnist_exp.tracking.spool import ids, sync
from fmnist_exp.tracking.spool.process import sender
from fmnist_exp.training.events import Epoch, FitCallback
from fmnist_exp.tuning import search as searching
from fmnist_exp.tuning.callback import SearchCallback, TrialSummary
from fmnist_exp.tuning.search import SearchRequest

EPOCHS = 3
CONFIG = files.override(NORMALIZED, {"training.epochs": EPOCHS, "training.precision": "float32"})
SEARCH = searches.configure(search__n_trials=3, training__epochs=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory, new_database) -> Iterator[services.MlflowServer]:
    folder = tmp_path_factory.mktemp("server")
    made = services.MlflowServer(folder, new_database(folder, "mlflow-artifacts:/0"))
    made.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", made.address)
        patch.setenv("FMNIST_EXP_SEND_SECONDS", "1")
        yield made
    made.stop()


class Calling(FitCallback):
    """Calls a function when an epoch ends."""

    def __init__(self, epoch: int, call: Callable[[], None]) -> None:
        self.epoch, self.call = epoch, call

    def on_epoch(self, epoch: Epoch) -> bool:
        if epoch.number == self.epoch:
            self.call()
        return False


def check_run(run_id: str, model_id: str, epochs: int = EPOCHS) -> mlflow.entities.Run:
    """The store has a finished run once and whole, and its model loads; return the run."""
    client = store.connect()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    for name in ("train_loss", "val_accuracy", "learning_rate"):
        points = client.get_metric_history(run_id, name)
        assert [point.step for point in points] == list(range(1, epochs + 1)), name
        times = [point.timestamp for point in points]
        assert times == sorted(times)
        assert run.info.start_time <= times[0] <= times[-1] <= run.info.end_time
    assert run.data.params["training.epochs"] == str(epochs)
    assert run.data.tags["fmnist.weights_sha256"]
    assert f"runs:/{run_id}/experiment.yaml" in run.data.tags["mlflow.note.content"]
    assert {item.tags[0].value for item in run.inputs.dataset_inputs} >= {"training", "validation"}
    assert [output.model_id for output in run.outputs.model_outputs] == [model_id]
    assert set(artifacts(client, run_id)) >= ARTIFACTS
    model = client.get_logged_model(model_id)
    assert (model.status, model.source_run_id) == (LoggedModelStatus.READY, run_id)
    assert {metric.key for metric in model.metrics} >= {"best_val_accuracy"}
    images = np.zeros((2, 28, 28), np.uint8)
    assert len(mlflow.pyfunc.load_model(f"models:/{model_id}").predict(images)) == 2
    return run


def artifacts(client: mlflow.MlflowClient, run_id: str, path: str = "") -> Iterator[str]:
    for entry in client.list_artifacts(run_id, path):
        yield from artifacts(client, run_id, entry.path) if entry.is_dir else [entry.path]


@contextmanager
def offline_here() -> Iterator[None]:
    """Let what the block starts send nothing; afterwards this process stands for the next command."""
    try:
        yield
    finally:
        sender().offline = False


def arrived(local: str) -> str:
    found = ids.resolve(store.connect(), local)
    assert found is not None
    assert not ids.is_local(found)
    return found


def test_a_fit_goes_on_while_its_server_is_stopped_and_started_again(server, small):
    request = TrainRequest(experiment=CONFIG, data=small, register=True, display=lambda *_: calling(1, server.stop))
    result = training.train(request)
    try:
        assert result.status == "completed"
        assert result.registration is None
        outcome = result.outcomes[CONFIG.name]
        assert ids.is_local(outcome.model_id)
    finally:
        server.start()
    assert not sender().drain(60)
    model_id = arrived(outcome.model_id)
    run = check_run(result.run_id, model_id)
    client = store.connect()
    version = client.get_model_version_by_alias(versions.NAME, versions.CHALLENGER)
    assert (versions.logged_model(version), version.run_id) == (model_id, run.info.run_id)
    assert float(version.tags["test_accuracy"]) == run.data.metrics["test_accuracy"]
    assert not Path("spool").exists()


@contextmanager
def calling(epoch: int, call: Callable[[], None]) -> Iterator[FitCallback]:
    yield Calling(epoch, call)


class Outage(SearchCallback):
    """Stops the server when the first trial begins, and starts it again when the second one has ended."""

    def __init__(self, server: services.MlflowServer) -> None:
        self.server = server
        self.ended: list[TrialSummary] = []

    def on_trial(self, number: int, settings: object, epochs: int) -> None:
        if number == 0:
            self.server.stop()

    def on_trial_end(self, trial: TrialSummary) -> None:
        self.ended.append(trial)
        if len(self.ended) == 2:
            self.server.start()


def test_a_search_goes_on_while_its_server_is_stopped_and_started_again(server, small, monkeypatch):
    monkeypatch.setenv("FMNIST_EXP_SEND_SECONDS", "60")
    outage = Outage(server)
    found = searches.search(SEARCH, "outage", data=small, callback=outage)
    assert [trial.state for trial in outage.ended] == ["COMPLETE"] * 3
    assert ids.is_local(outage.ended[1].run_id)  # a new trial began without the server
    assert found.result.registration is not None
    for trial in found.trials:
        run = check_run(arrived(trial.user_attrs["run_id"]), arrived(trial.user_attrs["model_id"]), epochs=1)
        assert run.data.tags["mlflow.parentRunId"] == found.parent.info.run_id
        assert run.data.tags["fmnist.trial_state"] == "COMPLETE"
    assert len(found.runs()) == 3
    assert found.parent.info.status == "FINISHED"
    assert not Path("spool").exists()
    again = searches.search(SEARCH, "outage", data=small)  # which must know its runs again
    assert again.result.registration.version == found.result.registration.version
    assert len(again.runs()) == 3


def synchronised(result: TrainResult) -> str:
    """Send everything, twice, and return the run's id."""
    assert ids.is_local(result.run_id)
    sent = sync.send(store.connect())
    assert not sent.left
    assert sent.refused == 0
    assert sent.records
    assert sync.send(store.connect()).records == 0
    assert not Path("spool").exists()
    return arrived(result.run_id)


def test_an_offline_fit_is_sent_later_with_its_version(server, small):
    with offline_here():
        result = training.train(TrainRequest(experiment=CONFIG, data=small, register=True, offline=True))
    outcome = result.outcomes[CONFIG.name]
    run_id = synchronised(result)
    check_run(run_id, arrived(outcome.model_id))
    version = store.connect().get_model_version_by_alias(versions.NAME, versions.CHALLENGER)
    assert version.run_id == run_id


def test_offline_baselines_stand_below_their_parent(server, small):
    smallest = files.load("baseline", {"training.epochs": 1, "training.batch_size": 100})
    with offline_here():
        result = baseline.run_baselines(TrainRequest(experiment=smallest, data=small, offline=True))
    parent = synchronised(result)
    for outcome in result.outcomes.values():
        run = store.connect().get_run(arrived(outcome.run_id))
        assert (run.info.status, run.data.tags["mlflow.parentRunId"]) == ("FINISHED", parent)


@pytest.mark.parametrize("final", [None, {"training.epochs": 2}])
def test_an_offline_search_is_sent_later_and_then_resumed(server, small, final):
    notices: list[str] = []
    callback = SearchCallback()
    callback.on_notice = notices.append  # type: ignore[method-assign]
    changed = {"search__objectives": ["val_accuracy", "prediction_seconds"], "search__keep": 1}
    config = searches.configure(search__n_trials=2, training__epochs=1, final=final, **changed)
    name = "offline-longer" if final else "offline"  # a server for the whole file
    request = SearchRequest(config=config, study=name, data=small, workers=1, offline=True, callback=callback)
    with offline_here():
        result = searching.run(request)
    assert result.status == "completed"
    assert result.registration is None
    assert any("fmnist-exp sync" in notice for notice in notices)
    sent = sync.send(store.connect())
    assert not sent.left
    assert sent.refused == 0
    parent = arrived(result.run_id)
    for trial in result.ranked:
        run = store.connect().get_run(arrived(trial.run_id))
        assert run.data.tags["mlflow.parentRunId"] == parent
        assert run.data.metrics["prediction_seconds"] > 0
    version = store.connect().get_model_version_by_alias(versions.NAME, versions.CHALLENGER)
    assert version.tags["study"] == name
    again = searches.search(config, name, data=small)
    assert again.result.registration is not None
    assert (again.result.registration.version == version.version) == (final is None)
    assert len(again.children("train")) == (final is not None)
    assert again.result.retention is not None
