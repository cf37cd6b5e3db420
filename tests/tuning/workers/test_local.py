"""Local workers that die at the worst moments: while they start, and while they start again."""

import asyncio
import gc
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import distributed
import psutil
import pytest
from distributed.comm import connect

from fmnist_exp.compat import forking
from fmnist_exp.errors import WorkError
from fmnist_exp.tuning.workers import local
from fmnist_exp.tuning.workers.jobs import Cluster
from fmnist_exp.tuning.workers.quiet import VARIABLES, quiet

SECONDS = 60  # a busy machine takes long to start Python


def workers() -> list[psutil.Process]:
    """Processes of this one's that are, or will be, workers: a server has forked them."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it has ended meanwhile
            found += child.children() if "forkserver" in " ".join(child.cmdline()) else []
    return found


@contextmanager
def killing(enough: Callable[[int], bool]) -> Iterator[list[int]]:
    """SIGKILL to every worker as soon as it is there, until `enough` says so of their number; yields who was hit."""
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        while not over.is_set() and not enough(len(killed)):
            for worker in workers()[:1]:
                if worker.pid not in killed:
                    os.kill(worker.pid, signal.SIGKILL)
                    killed.append(worker.pid)
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


def wait_for(cluster: Cluster, count: int) -> None:
    deadline = time.monotonic() + SECONDS
    while len(cluster.survey(str, "here")) != count:
        assert time.monotonic() < deadline, cluster.hosts()
        time.sleep(0.1)


def test_a_worker_killed_while_it_starts_is_started_again():
    with killing(lambda count: count == 1) as killed, local.starting(2) as started:
        wait_for(started.ready(), 2)
    assert len(killed) == 1
    assert workers() == []


def test_workers_that_never_start_are_an_error():
    begin = time.monotonic()
    with (
        killing(lambda count: False) as killed,
        pytest.raises(WorkError, match="workers end or hang while they start, 3 times"),
        local.starting(2) as started,
    ):
        started.ready()
    assert len(killed) >= local.STARTS
    assert time.monotonic() - begin < SECONDS
    assert workers() == []


def test_a_worker_killed_while_it_starts_again_comes_back_too():
    with local.starting(2) as started:
        wait_for(cluster := started.ready(), 2)
        with killing(lambda count: count == 3) as killed:
            deadline = time.monotonic() + SECONDS
            while len(killed) < 3:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        wait_for(cluster, 2)


@pytest.mark.parametrize("seconds", [0, 1.5])
def test_an_error_ends_workers_that_have_not_started_yet(seconds):
    before = {child.pid for child in psutil.Process().children()}
    with suppress(InterruptedError), local.starting(2):
        time.sleep(seconds)
        raise InterruptedError
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert [child for child in left if "resource_tracker" not in " ".join(child.cmdline())] == []


def test_workers_that_were_forked_just_now_end_before_the_error_leaves_the_block():
    """They would tell the terminal that what they were to load is gone."""
    forked: list[psutil.Process] = []
    with suppress(InterruptedError), local.starting(2):
        deadline = time.monotonic() + SECONDS
        while not (forked := workers()) and time.monotonic() < deadline:
            time.sleep(0.001)
        raise InterruptedError
    assert forked
    assert [process for process in forked if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []


def test_workers_get_variables_that_the_driver_does_not_keep(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "7")  # the user's own value counts

    def own() -> list[str | None]:
        return [os.environ.get(name) for name in VARIABLES]

    with local.starting(2) as started:
        assert own() == [None, "7"]
        cluster = started.ready()
        seen = [list(cluster.survey(os.environ.get, name).values()) for name in VARIABLES]
    assert seen == [[str(local.threads_of(2))] * 2, ["7", "7"]]
    assert own() == [None, "7"]


def test_workers_find_keras_in_memory_and_nothing_of_an_earlier_search(monkeypatch):
    for value in ("one", "two"):
        monkeypatch.setenv("FMNIST_EXP_TEST", value)
        with local.starting(2) as started:
            cluster = started.ready()
            assert set(cluster.survey(os.environ.get, "FMNIST_EXP_TEST").values()) == {value}
            assert set(cluster.survey(loaded, "keras").values()) == {"True"}


def loaded(name: str) -> str:
    return str(name in sys.modules)


def test_a_fork_server_of_somebody_else_lives_on():
    process = multiprocessing.get_context("forkserver").Process(target=print)
    process.start()
    process.join()
    try:
        server = forking.server()
        with local.starting(2) as started:
            wait_for(started.ready(), 2)
            assert workers() == []  # they were spawned
        assert forking.server() == server
        assert psutil.pid_exists(server)
    finally:
        forking.end()


def test_a_single_worker_is_this_process():
    with local.starting(1) as started:
        assert (started.count, workers()) == (1, [])


@pytest.mark.parametrize(("memory", "count"), [(64, 8), (9, 4), (1, 1)])
def test_short_memory_makes_fewer_workers(monkeypatch, caplog, memory, count):
    monkeypatch.setattr(local, "cpu_count", lambda: 8)
    monkeypatch.setattr(local, "memory_limit", lambda: memory * 2**30)
    assert local.affordable() == count
    assert bool(caplog.records) == (count < 8)


def test_asyncio_is_quiet_about_errors_out_of_dask_alone(caplog):
    async def ours() -> None:
        raise OSError("ours")

    async def nobody_waits() -> None:
        tasks = [asyncio.ensure_future(wait) for wait in (ours(), connect("tcp://127.0.0.1:1", timeout=0.1))]
        await asyncio.wait(tasks)
        assert all(task.done() for task in tasks)

    with quiet():
        asyncio.run(nobody_waits())
    gc.collect()  # asyncio speaks when a task goes
    coroutine = f"<Server._handle_comm() done, defined at {distributed.core.__file__}:706>"
    message = f"Task exception was never retrieved\nfuture: <Task finished coro={coroutine} exception=TimeoutError()>"
    logging.getLogger("asyncio").error(message)  # as a search once ended: an error without a traceback
    assert [record.exc_info[1].args for record in caplog.records if record.name == "asyncio"] == [("ours",)]
