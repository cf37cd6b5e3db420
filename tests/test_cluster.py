"""Searches in several processes: real Dask workers, a real MLflow store, real kills; only the training is left out."""

import contextlib
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import mlflow
import optuna
import psutil
import pytest
import standin

from fmnist_exp import connection
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.tuning import lease
from fmnist_exp.tuning.watching import TrialSummary, Watcher

STORAGE = "sqlite:///studies.db"
STANDIN = Path(standin.__file__)


class Found:
    """A study after its search, as Optuna and MLflow know it."""

    def __init__(self, name: str, storage: str = STORAGE) -> None:
        self.client = connection.connect()
        self.study = optuna.load_study(study_name=name, storage=storage)
        self.trials = self.study.get_trials()
        self.cut = self.study.user_attrs.get("cut_off", [])
        self.counted = [trial for trial in self.trials if trial.number not in self.cut and trial.state.is_finished()]

    def runs(self, kind: str = "trial") -> list[mlflow.entities.Run]:
        query = f"tags.`fmnist.study` = '{self.study.study_name}' and tags.`fmnist.kind` = '{kind}'"
        return self.client.search_runs(["0"], query, order_by=["attributes.start_time"])

    def check_nothing_is_open(self) -> None:
        """Every trial has one run, of the same state, and neither is in progress."""
        open_states = optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.WAITING
        assert [trial for trial in self.trials if trial.state == open_states[0]] == []
        status = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
        runs = {int(run.data.tags["fmnist.trial"]): run for run in self.runs()}
        assert len(runs) == len(self.runs()), "one run per trial"
        for trial in self.trials:
            if trial.state not in open_states and "run_id" in trial.user_attrs:
                run = runs.pop(trial.number)
                assert run.info.run_id == trial.user_attrs["run_id"]
                assert run.data.tags["fmnist.trial_state"] == trial.state.name
                assert run.info.status == ("KILLED" if trial.number in self.cut else status[trial.state.name])
        assert not runs, "runs without a trial"
        assert [run for run in self.runs("tune") if run.info.status == "RUNNING"] == []


class Killer(Watcher):
    """SIGKILL to the first worker that has done an epoch; keeps a diary."""

    def __init__(self) -> None:
        self.killed: list[int] = []
        self.again: list[int] = []
        self.together = 0
        self.running: set[int] = set()

    def on_trial(self, number: int, settings: object, epochs: int) -> None:
        self.running.add(number)
        self.together = max(self.together, len(self.running))

    def on_progress(self, number: int, epochs: float) -> None:
        if epochs >= 1 and not self.killed:
            pid = int(next(Path().glob("working-*")).name.removeprefix("working-"))
            self.killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    def on_retry(self, number: int, reason: str) -> None:
        self.again.append(number)

    def on_trial_end(self, trial: TrialSummary) -> None:
        self.running.discard(trial.number)


@pytest.fixture(scope="module")
def killer() -> Killer:
    return Killer()


@pytest.fixture(scope="module")
def found(shared_store: str, killer: Killer) -> Found:
    """Six trials on two workers, one of which was killed in the midst of a trial."""
    assert not standin.search(standin.configure(6), "two workers", watcher=killer)
    return Found("two workers")


def test_a_killed_workers_trial_runs_again_and_counts_once(found, killer):
    assert len(killer.killed) == len(killer.again) == 1
    assert [trial.state.is_finished() for trial in found.trials] == [True] * 6
    assert found.counted == found.trials
    found.check_nothing_is_open()


def test_an_execution_that_was_given_up_leaves_no_run(found, killer):
    everything = found.client.search_runs(["0"], run_view_type=mlflow.entities.ViewType.ALL)
    deleted = [run for run in everything if run.info.lifecycle_stage == "deleted"]
    assert [run.data.tags["fmnist.trial"] for run in deleted] == [str(number) for number in killer.again]
    assert [run.info.status for run in deleted] == ["KILLED"]


def test_each_epoch_is_logged_once_and_reported_once(found):
    for trial in found.trials:
        history = found.client.get_metric_history(trial.user_attrs["run_id"], "val_accuracy")
        assert {entry.step: entry.value for entry in history} == pytest.approx(trial.intermediate_values)
        assert len(history) == len(trial.intermediate_values)


def test_two_trials_run_at_once_in_processes_of_their_own(found, killer):
    assert killer.together == 2
    assert {trial.user_attrs["worker"] for trial in found.trials} == {"0", "1"}
    pids = {trial.user_attrs["pid"] for trial in found.trials}
    assert len(pids) >= 2
    assert os.getpid() not in pids


def test_pruning_works_across_processes(found):
    pruned = [trial for trial in found.trials if trial.state.name == "PRUNED"]
    assert pruned
    for trial in pruned:
        better = [
            other for other in found.trials if other.user_attrs["val_accuracy"] > trial.user_attrs["val_accuracy"]
        ]
        assert better
        assert max(trial.intermediate_values) < 4


def test_a_trial_whose_workers_die_three_times_fails_with_the_reason(shared_store):
    killer = Killer()
    standin.search(standin.configure(1), "deadly", watcher=killer, does=standin.deadly)
    deadly = Found("deadly")
    deadly.check_nothing_is_open()
    (trial,), (run,) = deadly.trials, deadly.runs()
    assert killer.again == [0, 0]
    assert trial.user_attrs["error"] == run.data.tags["fmnist.error"]
    assert trial.user_attrs["error"].startswith("its worker died 3 times")


def test_timeout_holds_within_an_epoch(shared_store):
    begin = time.monotonic()
    config = standin.configure(100, training__epochs=1000, search__timeout=0.25)
    study = {}
    begun = []

    class Clock(Watcher):
        def on_search(self, done: int, n_trials: int, deadline: float) -> None:
            study["deadline"] = deadline

        def on_trial(self, number: int, settings: object, epochs: int) -> None:
            begun.append(number)

    standin.search(config, "late", watcher=Clock())
    assert time.monotonic() < study["deadline"] + 10  # an epoch is 0.1 s; the machine may be busy, the workers must end
    assert study["deadline"] < begin + 60
    late = Found("late")
    late.check_nothing_is_open()
    assert begun
    assert sorted(begun) == [trial.number for trial in late.trials if "run_id" in trial.user_attrs]
    assert {trial.state.name for trial in late.counted} == {"PRUNED"}


# drivers that are killed, interrupted, or two


@contextlib.contextmanager
def driver(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The stand-in search as a process group of its own, killed at the end if it is still there."""
    command = [sys.executable, str(STANDIN), *arguments]
    settings = {**os.environ, "EPOCH_SECONDS": "0.3", **environment}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=settings
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def read_until(process: subprocess.Popen[str], words: str) -> list[str]:
    """The lines up to the first that has these words."""
    lines: list[str] = []
    assert process.stdout
    for line in process.stdout:
        lines.append(line.rstrip())
        if words in line:
            return lines
    raise AssertionError(f"{words!r} was not said:\n" + "\n".join(lines))


def gone(pids: Sequence[int], seconds: float = 15) -> bool:
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=seconds)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_a_killed_driver_is_resumed_by_the_same_command(shared_store):
    arguments = "killed", "--n_trials", "5", "--workers", "2"
    with driver(*arguments) as first:
        read_until(first, "end ")
        workers = [process.pid for process in psutil.Process(first.pid).children(recursive=True)]
        before = {trial.number: trial for trial in Found("killed").counted}
        first.kill()
        first.wait()
        assert gone(workers), "workers must not outlive their driver"
    with driver(*arguments) as second:
        printed = read_until(second, "search ")
        assert re.search(r"search [1-4]/5", printed[-1])
        rest, _ = second.communicate(timeout=120)
        assert second.returncode == 0, rest
    killed = Found("killed")
    killed.check_nothing_is_open()
    assert len(killed.counted) == 5
    assert [run.info.status for run in killed.runs("tune")] == ["KILLED", "FINISHED"]
    assert len({tuple(sorted(trial.params.items())) for trial in killed.counted}) == 5, "no trial is repeated"
    for number, trial in before.items():  # what had ended is as it was
        assert killed.trials[number].values == trial.values
        assert killed.trials[number].datetime_complete == trial.datetime_complete
    parents = {run.data.tags["mlflow.parentRunId"] for run in killed.runs()}
    assert parents == {killed.runs("tune")[1].info.run_id}


@pytest.mark.usefixtures("ctrl_c_heeded")
def test_a_second_driver_is_refused_and_ctrl_c_ends_the_first_cleanly(shared_store):
    with driver("held", "--n_trials", "5000", "--workers", "2") as first:  # more than it can run meanwhile
        read_until(first, "trial 1")
        with pytest.raises(RequestError) as refused:
            standin.search(standin.configure(5000), "held", workers=1)
        assert f"is being run by process {first.pid} on {os.uname().nodename} since " in str(refused.value)
        workers = [process.pid for process in psutil.Process(first.pid).children(recursive=True)]
        begin = time.monotonic()
        os.killpg(first.pid, signal.SIGINT)  # as a terminal does: to the driver and to its workers
        printed, _ = first.communicate(timeout=60)
        assert time.monotonic() - begin < 30
        assert first.returncode == 130, printed
        assert "Traceback" not in printed
        assert gone(workers)
    held = Found("held")
    held.check_nothing_is_open()
    assert held.cut, "what ran is cut off, and does not count"
    assert [run.info.status for run in held.runs("tune")] == ["KILLED"]
    with lease.hold(STORAGE, "held"):
        pass  # it is free


def test_a_scheduler_that_does_not_answer(shared_store):
    begin = time.monotonic()
    with pytest.raises(RequestError, match=r"the Dask scheduler tcp://127.0.0.1:1 does not answer"):
        standin.search(standin.configure(), "nobody", scheduler="tcp://127.0.0.1:1")
    assert time.monotonic() - begin < 20
    assert "nobody" not in optuna.get_all_study_names(STORAGE)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_ends_the_search_with_one_sentence_and_nothing_is_lost(tmp_path, new_database, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"may not mount: {mounted.stderr.strip()}")
    try:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", new_database(disk, str(disk / "mlruns")))
        monkeypatch.chdir(disk)
        arguments = "full", "--n_trials", "4", "--workers", "1"
        with driver(*arguments, EPOCH_SECONDS="0.1") as first:
            read_until(first, "end 0")
            filler = disk / "filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(2**12))
            printed, _ = first.communicate(timeout=120)
            assert first.returncode == 1, printed
            last = printed.splitlines()[-1]  # before it, MLflow logs what its database said
            assert re.match(r"the disk is full \(.*\); make room and run the command again with --study full", last)
        filler.unlink()
        with driver(*arguments, EPOCH_SECONDS="0.01") as second:
            printed, _ = second.communicate(timeout=120)
            assert second.returncode == 0, printed
        full = Found("full")
        full.check_nothing_is_open()
        assert len(full.counted) == 4
        assert full.trials[0].state.name == "COMPLETE"
    finally:
        monkeypatch.chdir(tmp_path)
        subprocess.run(["umount", "-l", str(disk)], check=True)


# the lease


def change_lease(**fields: object) -> None:
    """Let the row of the study "leased" say something else."""
    with sqlite3.connect("studies.db") as database:
        for name, value in fields.items():
            database.execute(f"UPDATE fmnist_exp_drivers SET {name} = ? WHERE study = 'leased'", [value])
    database.close()


def is_held() -> bool:
    try:
        with lease.hold(STORAGE, "leased"):
            return False
    except RequestError:
        return True


def test_a_lease_is_exclusive_and_free_after_its_release(shared_store):
    with lease.hold(STORAGE, "leased"):
        assert is_held()
        with lease.hold(STORAGE, "another study"):
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
def test_a_dead_drivers_lease_is_taken_over(shared_store, fields, held):
    with lease.hold(STORAGE, "leased") as mine:
        change_lease(**fields)
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
    with lease.hold(STORAGE, "leased"):
        change_lease(pid=ended.pid, born=process.create_time())
        assert not is_held()
    ended.communicate()


def test_a_driver_that_lost_its_lease_stops(shared_store, monkeypatch):
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    with lease.hold(STORAGE, "leased") as mine:
        mine.check()
        change_lease(token="another")
        time.sleep(1)
        with pytest.raises(WorkError, match="another process took study 'leased' over"):
            mine.check()
    change_lease(pid=2**22 + 1)
