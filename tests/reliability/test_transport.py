"""A transport error is the line's fault and never the setting's: the trial is retried, and does not count."""

from collections.abc import Sequence

import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from support import standin
from support.searches import FinishedSearch

from benchmarks.line import Fault, Line
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError
from fmnist_exp.tracking import store, transport
from fmnist_exp.tracking.run import Run
from fmnist_exp.training.events import FitCallback
from fmnist_exp.tuning.callback import SearchCallback
from fmnist_exp.tuning.workers.messages import TrialResult

LOST = [fault for fault in Fault if fault not in (Fault.DELAY, Fault.TWICE)]
ASKED = "GET .*mlflow-artifacts/artifacts"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")


@pytest.mark.parametrize("fault", LOST)
def test_a_call_without_a_whole_answer_is_lost(line, fault):
    line.inject(fault, "runs/get|experiments/search", times=None, seconds=2)
    with pytest.raises(MlflowException) as failed:
        MlflowClient().get_run("0" * 32)
    assert transport.is_lost(failed.value)
    with pytest.raises(RequestError, match="does not answer") as refused:
        store.connect()
    assert transport.is_lost(refused.value)


def test_an_answer_of_the_store_is_not_lost(line):
    for call in (lambda: MlflowClient().get_run("0" * 32), lambda: MlflowClient().create_experiment("Default")):
        with pytest.raises(MlflowException) as failed:
            call()
        assert not transport.is_lost(failed.value)
    missing = requests.get(f"{line.url}/none", timeout=5)
    with pytest.raises(requests.HTTPError) as refused:
        missing.raise_for_status()
    assert not transport.is_lost(refused.value)
    with pytest.raises(requests.RequestException) as wrong:
        requests.get("nowhere", timeout=5)
    assert not transport.is_lost(wrong.value)
    assert not transport.is_lost(ValueError("a setting that does not work"))


def asking(config: ExperimentConfig, data: FashionMNIST, run: Run, callbacks: Sequence[FitCallback]) -> TrialResult:
    """Ask the store in a trial, as an objective of a user's own may."""
    run.client.list_artifacts(run.id)
    return standin.objective(config, data, run, callbacks)


class Diary(SearchCallback):
    def __init__(self) -> None:
        self.retried: list[tuple[int, str]] = []

    def on_retry(self, number: int, reason: str) -> None:
        self.retried.append((number, reason))


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.GATEWAY])
def test_a_trial_whose_connection_fails_is_retried_and_is_no_failure(line: Line, data, fault, monkeypatch):
    monkeypatch.setattr("fmnist_exp.tuning.record.WAIT_SECONDS", 0.01)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    line.inject(fault, ASKED, times=6)  # more than the failures in a row that end a search
    diary = Diary()
    standin.search(
        standin.configure(2, search__pruner="none"),
        fault.name,
        workers=1,
        data=data,
        objective=asking,
        callback=diary,
    )
    found = FinishedSearch(fault.name)
    assert [trial.state.name for trial in found.trials] == ["COMPLETE", "COMPLETE"]
    assert [reason for _, reason in diary.retried] == ["a server did not answer"] * 6
    assert len(line.calls(ASKED)) == 8
