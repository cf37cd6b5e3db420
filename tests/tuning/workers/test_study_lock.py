"""The lock of a study: one process may drive it, as long as it lives."""

import sqlite3
import subprocess
import sys
import time

import psutil
import pytest
from support import standin
from support.searches import STORAGE

from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.tuning.workers import local, study_lock


def change_lock(**fields: object) -> None:
    """Let the row of the study "locked" say something else."""
    with sqlite3.connect("studies.db") as database:
        for name, value in fields.items():
            database.execute(f"UPDATE fmnist_exp_drivers SET {name} = ? WHERE study = 'locked'", [value])
    database.close()


def is_held() -> bool:
    try:
        with study_lock.hold(STORAGE, "locked"):
            return False
    except RequestError:
        return True


def test_a_lock_is_exclusive_and_free_after_its_release(shared_store):
    with study_lock.hold(STORAGE, "locked"):
        assert is_held()
        with study_lock.hold(STORAGE, "another study"):
            pass
    assert not is_held()


@pytest.mark.parametrize(
    ("fields", "held"),
    [
        ({}, True),
        ({"pid": 2**22 + 1}, False),  # no such process
        ({"born": 0.0}, False),  # another process has its number now
        ({"machine": "elsewhere"}, True),  # it gave a sign of life just now
        ({"machine": "elsewhere", "beat": "2026-01-01 00:00:00"}, False),
        ({"beat": "2026-01-01 00:00:00"}, True),  # silent, but its process is there
    ],
)
def test_a_dead_drivers_lock_is_taken_over(shared_store, fields, held):
    with study_lock.hold(STORAGE, "locked") as mine:
        change_lock(**fields)
        assert is_held() == held
        assert mine is not None


def test_a_zombie_holds_nothing(shared_store):
    ended = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert ended.stdout
    ended.stdout.read()
    process = psutil.Process(ended.pid)
    for _ in range(100):
        if process.status() == psutil.STATUS_ZOMBIE:
            break
        time.sleep(0.05)
    with study_lock.hold(STORAGE, "locked"):
        change_lock(pid=ended.pid, born=process.create_time())
        assert not is_held()
    ended.communicate()


def check_for(seconds: float, held: study_lock.StudyLock) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        held.check()
        time.sleep(0.02)


def test_a_driver_that_lost_its_lock_stops(shared_store, monkeypatch):
    monkeypatch.setattr(study_lock, "BEAT_SECONDS", 0.05)
    with study_lock.hold(STORAGE, "locked") as mine:
        mine.check()
        change_lock(token="another")
        with pytest.raises(WorkError, match="another process took study 'locked' over"):
            check_for(30, mine)
    change_lock(pid=2**22 + 1)


def test_a_study_that_is_being_run_is_refused_before_local_workers_are_awaited(shared_store, monkeypatch):
    monkeypatch.setattr(local.LocalWorkers, "ready", lambda _self: pytest.fail("awaited"))
    with study_lock.hold(STORAGE, "locked"), pytest.raises(RequestError, match="is being run by process"):
        standin.search(standin.configure(1), "locked", workers=2)
