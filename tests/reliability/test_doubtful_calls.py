"""Every kind of call, when it is sent twice and when its answer is lost or cut after the server has taken it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from support import everything

from benchmarks.line import Fault, Line, Rule
from fmnist_exp.registry import private_copy
from fmnist_exp.tracking.spool import delivery, folder
from fmnist_exp.tracking.spool.process import sender

VARYING = re.compile(r"(?<=artifacts/)\d+/(models/m-)?[0-9a-f]{32}/artifacts/.*|[0-9a-f]{32}|\?.*")


Send = Callable[[], dict[str, Any]]


def sending(server: str, experiment: str, model: Path, scratch: Path) -> Send:
    """Return a function that writes a run with everything, sends it over the line, and returns what the store has."""
    client = MlflowClient(server, server)  # past the line
    number = client.create_experiment(experiment)

    def work() -> dict[str, Any]:
        everything.write(number, model, scratch / "written")
        left = sender().drain(60)
        assert not left
        assert left.refused == 0
        assert not folder.root().exists()
        for found in client.search_logged_models([number]):
            with private_copy.opened(client, found.model_id):
                pass  # its files are whole
        return everything.stored(client, number)

    return work


@pytest.fixture
def send(line, tracking_server, tmp_path, model, request) -> Send:
    return sending(tracking_server, request.node.name, model, tmp_path)


@dataclass(frozen=True)
class Undisturbed:
    """The contents of the store after a run that nothing disturbs, and the calls of that run."""

    stored: dict[str, Any]
    calls: list[str]


@pytest.fixture(scope="module")
def undisturbed(tracking_server, tmp_path_factory, model) -> Undisturbed:
    scratch = tmp_path_factory.mktemp("undisturbed")
    with Line(tracking_server) as line, pytest.MonkeyPatch.context() as patch:
        patch.chdir(scratch)
        patch.setenv("MLFLOW_TRACKING_URI", line.url)
        stored = sending(tracking_server, "undisturbed", model, scratch)()
        return Undisturbed(stored, sorted({VARYING.sub("…", exchange.call) for exchange in line.record}))


def test_a_run_that_nothing_disturbs(undisturbed):
    assert {kind for kind, *_ in everything.KINDS} == set(delivery.HANDLERS), "every kind of record is written"
    for _, *calls in everything.KINDS:
        assert all(any(call in found for found in undisturbed.calls) for call in calls)
    (run, parent), (model,), (version,) = (undisturbed.stored[what] for what in ("runs", "models", "versions"))
    assert (run["info"][:2], parent["info"][:2]) == (["child", "FINISHED"], ["parent", "FINISHED"])
    assert [point[0] for point in run["metrics"]["loss"]] == [1, 2, 3]
    assert (model["status"], version["model"]) == ("READY", "<model 0>")


def inject(line: Line, calls: list[str], fault: Fault, **options: Any) -> dict[str, Rule]:
    def pattern(call: str) -> str:
        return f"^{re.escape(call).replace('artifacts/…', 'artifacts/.*').replace('…', '[^/]*')}$"

    return {call: line.inject(fault, pattern(call), **options) for call in calls}


def not_met(rules: dict[str, Rule]) -> list[str]:
    return [call for call, rule in rules.items() if not rule.happened.is_set()]


DELETIONS = [("DELETE", "logged-models/…"), ("DELETE", "model-versions/delete"), ("POST", "runs/delete")]
FAST = [Fault.DROP, Fault.CUT]
SLOW = [Fault.GATEWAY, Fault.UNAVAILABLE, Fault.RESET, Fault.LOSE_REQUEST, Fault.HANG, Fault.SILENT, Fault.DELAY]


@pytest.mark.parametrize("fault", [*FAST, *(pytest.param(fault, marks=pytest.mark.slow) for fault in SLOW)])
def test_every_kind_of_call_is_carried_out_once_if_its_first_answer_is_lost(line: Line, send, undisturbed, fault):
    rules = inject(line, undisturbed.calls, fault, seconds=0.5)
    assert send() == undisturbed.stored
    assert not_met(rules) == []


def test_a_call_that_is_sent_twice_changes_nothing(line: Line, send, undisturbed):
    deletions = [f"{method} /api/2.0/mlflow/{path}" for method, path in DELETIONS]  # of what the second call has made
    rules = inject(line, [*undisturbed.calls, *deletions], Fault.TWICE)
    assert send() == undisturbed.stored
    assert not_met(rules) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_line_that_fails_at_random_loses_and_doubles_nothing(line: Line, send, undisturbed, seed):
    line.weather(0.2, list(Fault), seconds=0.5, seed=seed)
    assert send() == undisturbed.stored
    assert line.counts.total() - line.counts[None] > 10
