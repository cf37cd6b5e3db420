"""Local workers that die at the worst moments: while they start, and while they start again."""

import asyncio
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import distributed
import psutil
import pytest
from distributed.comm import connect

from fmnist_exp.errors import WorkError
from fmnist_exp.tuning.workers import dask as dask_workers
from fmnist_exp.tuning.workers.jobs import Cluster

SECONDS = 60  # a busy machine takes long to start Python


def workers() -> list[psutil.Process]:
    """Processes of this one's that are, or will be, workers."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            found += [child] if "spawn_main" in " ".join(child.cmdline()) else []
        except psutil.Error:
            continue  # it has ended meanwhile
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
    with killing(lambda count: count == 1) as killed, dask_workers.local(2, threads=1) as cluster:
        wait_for(cluster, 2)
    assert len(killed) == 1
    assert workers() == []


def test_workers_that_never_start_are_an_error():
    begin = time.monotonic()
    with (
        killing(lambda count: False) as killed,
        pytest.raises(WorkError, match="workers end or hang while they start, 3 times"),
        dask_workers.local(2, threads=1),
    ):
        raise AssertionError("no worker lived")
    assert len(killed) >= dask_workers.STARTS
    assert time.monotonic() - begin < SECONDS
    assert workers() == []


def test_a_worker_killed_while_it_starts_again_comes_back_too():
    with dask_workers.local(1, threads=1) as cluster:
        wait_for(cluster, 1)
        with killing(lambda count: count == 3) as killed:
            deadline = time.monotonic() + SECONDS
            while len(killed) < 3:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        wait_for(cluster, 1)


def test_asyncio_is_quiet_about_errors_out_of_dask_alone(caplog):
    async def ours() -> None:
        raise OSError("ours")

    async def nobody_waits() -> None:
        tasks = [asyncio.ensure_future(wait) for wait in (ours(), connect("tcp://127.0.0.1:1", timeout=0.1))]
        await asyncio.wait(tasks)
        assert all(task.done() for task in tasks)

    with dask_workers.quiet():
        asyncio.run(nobody_waits())
    gc.collect()  # asyncio speaks when a task goes
    coroutine = f"<Server._handle_comm() done, defined at {distributed.core.__file__}:706>"
    message = f"Task exception was never retrieved\nfuture: <Task finished coro={coroutine} exception=TimeoutError()>"
    logging.getLogger("asyncio").error(message)  # as a search once ended: an error without a traceback
    assert [record.exc_info[1].args for record in caplog.records if record.name == "asyncio"] == [("ours",)]
