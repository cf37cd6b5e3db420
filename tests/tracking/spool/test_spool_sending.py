"""A run that is written to a spool reaches the embedded store, in order and once."""

import threading

import mlflow
import pytest
from support.spools import creation, head

from fmnist_exp.tracking import store
from fmnist_exp.tracking.spool import folder as folders
from fmnist_exp.tracking.spool import ids
from fmnist_exp.tracking.spool.process import sender
from fmnist_exp.tracking.spool.sender import Sender


@pytest.fixture
def client(shared_store, monkeypatch, tmp_path):
    monkeypatch.setenv("FMNIST_EXP_SPOOL", str(tmp_path / "spool"))
    yield store.connect()
    assert not sender().drain(10)


def test_a_run_is_created_written_and_ended(client, tmp_path):
    spool = sender().open(client, head())
    number = spool.append("create_run", creation(note="hello"))
    assert spool.wait(number, 30)
    assert spool.id == spool.result(number)
    for step in range(1, 4):
        spool.append("batch", {"metrics": [["loss", 1 / step, 1000 + step, step]]})
    spool.append("batch", {"params": {"p": "1"}, "tags": {"t": "x", "about": f"run {spool.head.id} is mine"}})
    assert spool.wait(spool.append("status", {"status": "FINISHED", "end_time": 5000}), 30)
    run = client.get_run(spool.id)
    assert (run.info.run_name, run.info.start_time, run.info.end_time) == ("a run", 1000, 5000)
    assert (run.info.status, run.data.params) == ("FINISHED", {"p": "1"})
    assert {**run.data.tags, "note": "hello", "about": f"run {spool.id} is mine"} == run.data.tags
    assert run.data.tags["fmnist.spool_id"] == spool.head.id
    assert [point.step for point in client.get_metric_history(spool.id, "loss")] == [1, 2, 3]
    assert ids.resolve(client, spool.head.id) == spool.id
    spool.close()
    assert not sender().drain()
    assert not folders.root().exists()


def test_ctrl_c_just_after_a_thread_started_leaves_no_thread_that_nobody_knows(client, monkeypatch):
    """Such a thread was not waited for, and ended with a KeyError."""
    start, errors = threading.Thread.start, []

    def start_and_be_interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading, "excepthook", errors.append)
    others = set(threading.enumerate())
    mine = Sender(str(mlflow.get_tracking_uri()), lambda uri: mine)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(threading.Thread, "start", start_and_be_interrupted)
        with pytest.raises(KeyboardInterrupt):
            mine.open(client, head()).append("create_run", creation())
    begun = set(threading.enumerate()) - others
    mine.drain(30)
    mine.stop(30)
    assert [thread.name for thread in begun] == ["spool-records"]
    assert not [thread for thread in begun if thread.is_alive()]
    assert not errors
