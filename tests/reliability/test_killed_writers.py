"""Processes that are killed while they log a run, at chosen calls and at many moments."""

import multiprocessing
import os
import random
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModelStatus
from support import everything

from benchmarks.line import Fault, Line
from fmnist_exp.registry import private_copy, versions
from fmnist_exp.tracking import store
from fmnist_exp.tracking.spool import folder, sync

MODEL = {  # the calls that bring a model to the store: what is reached when the process dies
    "POST .*/logged-models$": Fault.DROP,  # the store has the model, and nobody knows its id
    "PUT .*/models/.*/MLmodel": Fault.HANG,  # its first file
    "PUT .*/models/.*/data/model.keras": Fault.LOSE_REQUEST,  # half of a file
    "PUT .*/models/.*/checksums.json": Fault.SILENT,
    "PATCH .*/logged-models/.*/tags": Fault.SILENT,
    "PATCH .*/logged-models/m-[^/]*$": Fault.HANG,  # uploaded, and not finalised
    "model-versions/create": Fault.SILENT,
}
OTHERS = {
    "runs/create": Fault.SILENT,
    "log-batch": Fault.SILENT,
    "log-inputs": Fault.SILENT,
    "runs/outputs": Fault.SILENT,
    "PUT .*/figures/": Fault.LOSE_REQUEST,
    "DELETE ": Fault.SILENT,
    "model-versions/set-tag": Fault.SILENT,
    "registered-models/alias": Fault.SILENT,
    "runs/update": Fault.SILENT,
}
forks = multiprocessing.get_context("forkserver")  # each process starts in milliseconds
Start = Callable[..., ForkServerProcess]


@pytest.fixture
def start(line, tmp_path, monkeypatch) -> Start:
    """Start a function in a process of its own, with the address of the line and a folder as its first arguments."""

    def run(function: Callable[..., None], *arguments: Any) -> ForkServerProcess:
        process = forks.Process(target=function, args=(line.url, tmp_path, *arguments), daemon=True)
        process.start()
        return process

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for the process that forks, which imports once
    forks.set_forkserver_preload(["support.everything"])
    return run


@pytest.fixture
def experiment(tracking_server, request) -> tuple[MlflowClient, str]:
    """A client past the line, and an experiment of the test's own."""
    client = MlflowClient(tracking_server, tracking_server)
    return client, client.create_experiment(request.node.name)


@pytest.mark.parametrize("call", [*MODEL, *(pytest.param(call, marks=pytest.mark.slow) for call in OTHERS)])
def test_a_process_killed_at_a_call_leaves_nothing_half(line: Line, start, experiment, model, call):
    client, number = experiment
    rule = line.inject({**MODEL, **OTHERS}[call], call)
    process = start(everything.main, number, model)
    assert rule.happened.wait(120)
    process.kill()
    process.join()
    line.clear()
    sent = sync.adopt(store.connect())  # as the next command does
    assert sent.refused == len(sent.left) == 0
    assert not folder.root().exists()
    content = everything.stored(client, number)
    (written,) = client.search_logged_models([number])
    assert written.status == LoggedModelStatus.READY
    (version,) = (v for v in versions.by_number(client).values() if versions.logged_model(v) == written.model_id)
    with versions.opened(client, version):
        pass  # all of its files are there, and are what was written
    assert [run["info"][:3] for run in content["runs"]] == [[n, "FINISHED", "active"] for n in ("child", "parent")]
    assert [point[0] for point in content["runs"][0]["metrics"]["loss"]] == [1, 2, 3]
    assert [len(run["output models"]) for run in content["runs"]] == [1, 1]
    assert sync.adopt(store.connect()).records == 0
    assert everything.stored(client, number) == content


@pytest.mark.parametrize("up", [True, False], ids=["while it sends", "while the server is away"])
def test_no_epoch_is_lost_or_doubled_by_a_kill_at_any_moment(line: Line, start, experiment, up):
    client, number = experiment
    moments = random.Random(int(up))
    said: list[int] = []
    if not up:
        line.close()
    for _ in range(15):
        ours, theirs = forks.Pipe(duplex=False)
        process = start(everything.endless, number, theirs)
        theirs.close()
        said.append(ours.recv())
        deadline = time.monotonic() + moments.uniform(0, 0.01)
        while time.monotonic() < deadline:
            said[-1] = ours.recv()
        process.kill()
        process.join()
        said[-1] = max([said[-1], *_rest(ours)])
    line.open()
    sent = sync.adopt(store.connect())
    assert sent.refused == len(sent.left) == 0
    runs = client.search_runs([number], order_by=["attributes.created ASC"])
    assert len(runs) == len(said)
    written = [[point.step for point in client.get_metric_history(run.info.run_id, "loss")] for run in runs]
    assert all(steps == list(range(1, len(steps) + 1)) for steps in written), "each epoch once, and none is missing"
    for epochs, steps in zip(sorted(said), sorted(map(len, written)), strict=True):
        assert steps in (epochs, epochs + 1)  # what was written and not said yet may be there


def _rest(said: Any) -> list[int]:
    """Return what a dead process has said last."""
    found = []
    try:
        while True:
            found.append(said.recv())
    except (EOFError, OSError):
        return found


@pytest.mark.slow
def test_models_are_whole_after_kills_at_many_moments(line: Line, start, experiment, model):
    client, number = experiment
    moments = random.Random(0)
    for _ in range(30):
        process = start(everything.main, number, model)
        process.join(moments.uniform(0.05, 4))
        process.kill()
        process.join()
    sent = sync.adopt(store.connect())
    assert sent.refused == len(sent.left) == 0
    models = client.search_logged_models([number], max_results=100)
    assert {found.status for found in models} == {LoggedModelStatus.READY}
    for found in models:
        with private_copy.opened(client, found.model_id):
            pass
    sources = [versions.logged_model(version) for version in versions.by_number(client).values()]
    ours = [source for source in sources if source in {found.model_id for found in models}]
    assert len(ours) == len(set(ours)), "one version of each"
