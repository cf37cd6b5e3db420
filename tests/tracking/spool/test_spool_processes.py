"""A process that is killed, forked, interrupted or simply ends leaves nothing behind that the next one cannot send."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.artifacts import list_artifacts
from support import services
from support.spools import begin, contents, folder, log_everything

from fmnist_exp.tracking import store
from fmnist_exp.tracking.spool import folder as folders
from fmnist_exp.tracking.spool import sync
from fmnist_exp.tracking.spool.folder import Folder
from fmnist_exp.tracking.spool.process import sender

ENDS = """
import os, signal, sys, time
from support.spools import begin
from fmnist_exp.tracking.spool.process import sender
spool = begin(None)
for step in range(50):
    spool.append("batch", {"metrics": [["loss", 1.0, step, step]]})
"""

INTERRUPTED = """
signal.signal(signal.SIGALRM, signal.default_int_handler)
interrupted = 0
for step in range(50, 200):
    try:
        signal.setitimer(signal.ITIMER_REAL, (step - 49) * 1e-6 if step % 2 == 0 else 0)
        spool.append("batch", {"metrics": [["loss", 1.0, step, step]]})
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupted += 1
        spool.append("batch", {"metrics": [["interrupted", 1.0, step, step]]})
"""

FORKS = """
spool.wait(1)
if (child := os.fork()) == 0:  # the libraries below the store do not survive a fork, so that it sends nothing
    spool.append("batch", {"tags": {"child": "was here"}})
    spool.append("batch", {"tags": {"run": spool.id}})
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""

KILLED = """
import pathlib
from fmnist_exp.tracking.spool import queue
from support.spools import log_everything
settle = queue.Spool.settle
def settle_or_die(spool, record, found):
    if record.kind == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
    settle(spool, record, found)
queue.Spool.settle = settle_or_die
log_everything(spool, pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
sender().drain()
"""


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a new process, in which every warning is an error."""
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=services.with_package())


@pytest.fixture
def client(shared_store, monkeypatch, tmp_path):
    monkeypatch.setenv("FMNIST_EXP_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    return store.connect()


def test_a_process_that_ends_forks_and_is_interrupted_sends_everything(client):
    known = {found.info.run_id for found in client.search_runs(["0"])}
    done = run(ENDS + INTERRUPTED + FORKS + "print(spool.head.id, interrupted)")
    assert (done.returncode, done.stderr) == (0, "")
    local, interrupted = done.stdout.split()
    assert sync.adopt(client).records == 2  # of the fork
    assert int(interrupted) > 0
    (found,) = (found for found in client.search_runs(["0"]) if found.info.run_id not in known)
    assert found.data.tags["fmnist.spool_id"] == local
    assert (found.data.tags["child"], found.data.tags["run"]) == ("was here", found.info.run_id)
    steps = {
        name: [point.step for point in client.get_metric_history(found.info.run_id, name)]
        for name in ("loss", "interrupted")
    }
    assert len(steps["interrupted"]) == int(interrupted)
    assert {*steps["loss"], *steps["interrupted"]} == set(range(200))
    assert len(steps["loss"]) == len(set(steps["loss"]))
    assert not folders.root().exists()


def test_a_process_without_a_server_ends_soon_and_leaves_a_whole_folder(client, monkeypatch, shared_store):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:hunter2@127.0.0.1:{port}")
    done = run(ENDS + "print(spool.wait(1), time.monotonic(), flush=True)")
    assert done.returncode == 0
    assert done.stderr.count("\n") == 1
    assert f"the tracking store http://***@127.0.0.1:{port} does not answer (the connection was refused)" in done.stderr
    assert done.stdout.startswith("False")
    assert time.monotonic() < float(done.stdout.split()[1]) + 60
    (left,) = folders.all_paths(folders.root())
    assert "hunter2" not in "".join(file.read_text() for file in left.iterdir())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", shared_store)
    assert sync.send(client, left).records == 51
    assert not folders.root().exists()


def test_a_process_killed_between_the_store_and_the_mark_sends_nothing_twice(client, registered, tmp_path):
    known = {found.info.run_id for found in client.search_runs(["0"])}
    done = run(ENDS + KILLED, registered.files, tmp_path, "model")
    assert done.returncode == -signal.SIGKILL, done.stderr
    sent = sync.adopt(client)
    assert (sent.left, sent.refused) == ({}, 0)
    (found,) = (found for found in client.search_runs(["0"]) if found.info.run_id not in known)
    assert found.info.status == "FINISHED"
    models = client.search_logged_models(["0"], filter_string=f"source_run_id = '{found.info.run_id}'")
    assert [str(model.status) for model in models] == ["READY"]
    assert [output.model_id for output in found.outputs.model_outputs] == [models[0].model_id]
    assert not folders.root().exists()


def test_a_process_killed_at_any_mark_sends_nothing_twice(client, shared_store, registered, tmp_path, monkeypatch):
    """Copies of the folder, made before each mark, are what a kill at that moment would leave."""
    settle, copies = Folder.settle, []

    def copy_and_settle(self, number: int, kind: str, **body: object) -> None:
        copies.append(Path(shutil.copytree(self.path, tmp_path / f"copy-{number}")))
        settle(self, number, kind, **body)

    monkeypatch.setattr(Folder, "settle", copy_and_settle)
    spool = begin(client)
    log_everything(spool, registered.files, tmp_path)
    spool.close()
    assert not sender().drain()
    monkeypatch.undo()
    database = Path(shared_store.removeprefix("sqlite:///"))
    once = contents(database)
    assert len(copies) == 14
    for copy in copies:
        sent = sync.send(client, copy)
        assert (sent.left, sent.refused) == ({}, 0)
        assert contents(database) == once


def test_a_full_disk_keeps_records_in_memory_and_the_run_goes_on(client, tmp_path, monkeypatch, caplog):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    try:
        monkeypatch.setenv("FMNIST_EXP_SPOOL", str(disk / "spool"))
        monkeypatch.setattr(sender(), "offline", True)
        spool = begin(client)
        for step in range(120):
            spool.append("batch", {"metrics": [["loss", 1.0, step, step]], "tags": {f"t{step}": "x" * 500}})
        number = spool.append("artifacts", {"path": ""}, files=folder(tmp_path, {"a.txt": "a" * 70_000}))
        left = sender().left()
        assert 50 < left.unsaved < left.records == 122
        (told,) = [record.getMessage() for record in caplog.records]
        assert "No space left on device" in told
        sender().offline = False
        assert not sender().drain()
        assert spool.wait(number)
        spool.close()
        run = client.get_run(spool.id)
        assert len([tag for tag in run.data.tags if tag.startswith("t")]) == 120
        assert [entry.path for entry in list_artifacts(run_id=spool.id)] == ["a.txt"]
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
