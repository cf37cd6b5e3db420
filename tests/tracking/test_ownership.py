"""Runs know who writes them: live runs are left alone, those of dead processes are closed by the next command."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from fmnist_exp.backend import processes
from fmnist_exp.cli import main
from fmnist_exp.errors import RequestError
from fmnist_exp.tracking import ownership, resumption, store
from fmnist_exp.tracking import run as runs

# a process that writes a run, a parent with a child, says so, and waits
WRITER = """
import sys, time
from fmnist_exp.tracking import ownership, run as runs, store
ownership.BEAT_SECONDS = 0.2
client = store.connect()
run = runs.start_run(client, "train", "killed", "x")
parent = runs.start_run(client, "tune", "parent", "x")
child = runs.start_run(client, "trial", "child", "x", parent)
print(run.id, parent.id, child.id, flush=True)
time.sleep(60)
"""
GONE = {"pid": 2**22 + 1}
ELSEWHERE = {"machine": "another one", "host": "far"}


@pytest.fixture(scope="module")
def client(shared_store) -> MlflowClient:
    return store.connect()


@pytest.fixture(scope="module")
def killed(client) -> dict[str, str]:
    """Return the ids of the runs that a killed process left open."""
    with subprocess.Popen([sys.executable, "-c", WRITER], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        ids = dict(zip(("run", "parent", "child"), writer.stdout.readline().split(), strict=True))
        first = owner(client, ids["run"])
        assert (first["pid"], first["machine"]) == (writer.pid, processes.machine())
        assert ownership.close_dead(client) == []
        client.set_terminated(ids["run"], "KILLED")  # as another host does after a quarter of an hour of silence
        client.set_tag(ids["run"], "fmnist.error", "its process died: process 1 on far was writing the run")
        with pytest.raises(RequestError, match=f"is being written by process {writer.pid} on "):
            resumption.reopen(client, ids["run"])
        wait_until(lambda: client.get_run(ids["run"]).info.status == "RUNNING")
        assert "fmnist.error" not in client.get_run(ids["run"]).data.tags
        assert owner(client, ids["run"])["beat"] > first["beat"]
        os.kill(writer.pid, signal.SIGKILL)
    return ids


def owner(client: MlflowClient, run_id: str) -> dict:
    return json.loads(client.get_run(run_id).data.tags["fmnist.owner"])


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_next_command_closes_what_a_killed_process_left(client, killed):
    for run_id in killed.values():
        assert client.get_run(run_id).info.status == "RUNNING"
    with pytest.raises(RequestError, match="no state to resume from"):
        CliRunner().invoke(main, ["train", "--resume", killed["run"]], catch_exceptions=False, standalone_mode=False)
    runs.start_run(client, "evaluate", "next", "x").close()
    for run_id in killed.values():
        found = client.get_run(run_id)
        assert found.info.status == "KILLED"
        assert found.data.tags["fmnist.error"].startswith("its process died: process ")
    assert ownership.close_dead(client) == []


def left(client: MlflowClient, parent: runs.Run | None = None, **fields: object) -> str:
    """A run that is RUNNING, and whose owner is this process, but for these fields."""
    run = runs.start_run(client, "train", "left", "x", parent)
    ownership.release(run)
    change(client, run.id, **fields)
    return run.id


def change(client: MlflowClient, run_id: str, **fields: object) -> None:
    client.set_tag(run_id, "fmnist.owner", json.dumps(owner(client, run_id) | fields))


@pytest.mark.parametrize(
    ("fields", "closed"),
    [
        ({}, False),
        (GONE, True),
        ({"born": 0.0}, True),  # another process has its number now
        ({"beat": 0.0}, False),  # silent, but its process is there
        (ELSEWHERE, False),
        (ELSEWHERE | {"silent": 600}, False),  # its server may be away for minutes
        (ELSEWHERE | {"silent": 1000}, True),
        ({"pid": -1}, False),  # not what this package writes: nobody knows
        ({"pid": 10**400}, False),
        ({"beat": None}, False),
    ],
)
def test_only_runs_of_dead_processes_are_closed(client, fields, closed):
    own = {"beat": time.time() - fields["silent"]} if "silent" in fields else {}
    run_id = left(client, **fields | own)
    assert (run_id in ownership.close_dead(client)) == closed
    assert client.get_run(run_id).info.status == ("KILLED" if closed else "RUNNING")
    client.set_terminated(run_id, "KILLED")


def test_children_of_a_live_parent_are_not_closed(client):
    silent = ELSEWHERE | {"beat": 0.0}
    with runs.closing(runs.start_run(client, "tune", "parent", "x")) as parent:
        of_the_living = left(client, parent, **silent)
        assert ownership.close_dead(client) == []
        dead = left(client, parent, **GONE)
        assert ownership.close_dead(client) == [dead]  # its own process is known to be gone
    assert ownership.close_dead(client) == [of_the_living]


def test_a_run_of_an_earlier_release_is_left_alone(client):
    run = runs.start_run(client, "train", "old", "x")
    client.delete_tag(run.id, "fmnist.owner")
    assert ownership.close_dead(client) == []
    ownership.check_dead(client, client.get_run(run.id), "the run")
    run.close()


def test_a_run_that_another_process_resumed_is_not_written_any_more(client):
    with runs.closing(runs.start_run(client, "train", "lost", "x")) as run:
        ownership.check(run)
        change(client, run.id, **ELSEWHERE)
        ownership.renew(run)
        with pytest.raises(ownership.LostError, match="another process resumed run"):
            ownership.check(run)
    found = client.get_run(run.id)
    assert (found.info.status, owner(client, run.id)["host"]) == ("RUNNING", "far")
    assert "fmnist.error" not in found.data.tags


def test_the_process_itself_does_not_resume_a_run_that_it_writes(client):
    run = runs.start_run(client, "train", "mine", "x")
    with pytest.raises(RequestError, match=f"is being written by process {os.getpid()} on "):
        resumption.reopen(client, run.id)
    ownership.release(run)  # it was given up without being closed
    again = resumption.reopen(client, run.id)
    again.close()
    assert resumption.reopen(client, run.id).tag(runs.Tag.RESUMPTIONS) == "2"
