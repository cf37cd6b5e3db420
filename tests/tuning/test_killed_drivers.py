"""Drivers of a search that are killed, interrupted, or two, or out of disk: real processes, real stores."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from support import standin
from support.searches import STORAGE, FinishedSearch, pruning

from fmnist_exp.errors import RequestError
from fmnist_exp.tracking import store
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.workers import study_lock

TESTS = Path(__file__).parents[1]


@contextlib.contextmanager
def driver(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The stand-in search as a process group of its own, killed at the end if it is still there."""
    command = [sys.executable, "-m", "support.standin", *arguments]
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    settings = {**os.environ, "EPOCH_SECONDS": "0.3", "PYTHONPATH": paths, **environment}
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
        first.kill()
        first.wait()
        before = {trial.number: trial for trial in FinishedSearch("killed").counted}
        assert gone(workers), "workers must not outlive their driver"
    mine = standin.configure(9)  # with another budget it is the same search
    assert studies.left_by_a_kill(mine, STORAGE) == "killed"
    assert studies.left_by_a_kill(mine.model_copy(update={"seed": 1}), STORAGE) is None
    assert studies.left_by_a_kill(mine, "sqlite:///none.db") is None
    assert not Path("none.db").exists()
    with driver(*arguments) as second:
        printed = read_until(second, "search ")
        assert re.search(r"search [1-4]/5", printed[-1])
        rest, _ = second.communicate(timeout=120)
        assert second.returncode == 0, rest
    assert studies.left_by_a_kill(mine, STORAGE) is None
    killed = FinishedSearch("killed")
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
    held = FinishedSearch("held")
    held.check_nothing_is_open()
    assert held.cut, "what ran is cut off, and does not count"
    assert [run.info.status for run in held.runs("tune")] == ["KILLED"]
    with study_lock.hold(STORAGE, "held"):
        pass  # it is free


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
        arguments = "full", "--n_trials", "8", "--workers", "1"
        with driver(*arguments, EPOCH_SECONDS="0.1") as first:
            ended = int(read_until(first, "end ")[-1].split()[1])
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
        full = FinishedSearch("full")
        full.check_nothing_is_open()
        assert len(full.counted) == 8
        assert ended in [trial.number for trial in full.counted]
    finally:
        monkeypatch.chdir(tmp_path)
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_trials_that_paused_before_a_kill_go_on_in_their_runs(shared_store, folder):
    """Real fits with rungs after epochs 1, 2 and 4 of 5, in worker processes that die with their driver."""
    changes = {"training__epochs": 5, "search__n_trials": 8, "search__reduction_factor": 2, "training__batch_size": 10}
    Path("pausing.yaml").write_text(pruning(data__source=folder, **changes).to_yaml())
    command = [sys.executable, "-m", "fmnist_exp", "tune", "--experiment", "pausing.yaml", "--study", "pausing"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": shared_store, "PYTHONPATH": str(TESTS.parent)}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environment}
    first = subprocess.Popen([*command, "--workers", "2"], start_new_session=True, **options)
    paused: list[str] = []
    deadline = time.monotonic() + 120
    while not paused and time.monotonic() < deadline and first.poll() is None:
        query = "tags.`fmnist.study` = 'pausing' and tags.`fmnist.trial_state` = 'PAUSED'"
        found = store.client().search_runs(["0"], query)
        paused = [run.info.run_id for run in found]
    os.killpg(first.pid, signal.SIGKILL)
    printed, _ = first.communicate()
    assert paused, printed
    second = subprocess.run([*command, "--workers", "2"], timeout=300, **options)
    assert second.returncode == 0, second.stdout
    killed = FinishedSearch("pausing")
    killed.check_nothing_is_open()
    assert len(killed.counted) == 8
    runs = {trial.user_attrs["run_id"]: trial for trial in killed.counted}
    assert set(paused) <= runs.keys(), "they ended in the runs in which they had paused"
    for run_id, trial in runs.items():
        curve = killed.client.get_metric_history(run_id, "val_accuracy")
        assert [point.step for point in curve] == sorted(trial.intermediate_values), "each epoch is there, once"
        assert killed.client.list_artifacts(run_id, "checkpoint") == [], "no state is left"
