"""Workers for a search: processes of this machine, or those of a running Dask scheduler."""

from __future__ import annotations

import logging
import os
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from fmnist_exp import compat
from fmnist_exp.backend import loading
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.tuning.workers.jobs import Cluster

if TYPE_CHECKING:
    from distributed import Client, LocalCluster, Worker

CONNECT_SECONDS = 5
WORKERS_SECONDS = 30  # a scheduler may be there before its workers
SETTLE_SECONDS = 2  # without a new worker: all are there
STARTS = 3  # attempts to start local workers
LEAVE_SECONDS = 2  # for a worker to give back its semaphores


@contextmanager
def local(workers: int, threads: int) -> Iterator[Cluster]:
    """Worker processes on this machine, which end with this process; each is to compute with so many threads.

    Raises:
        WorkError: they end while they start.
    """
    import dask
    from distributed import Client

    settings: dict[str, Any] = {
        "distributed.scheduler.allowed-failures": 2,
        "distributed.scheduler.worker-saturation": 1.0,  # what waits, waits at the scheduler: no job dies with another
        "distributed.scheduler.work-stealing": False,
        "distributed.scheduler.active-memory-manager.start": False,
        "distributed.worker.profile.enabled": False,
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.admin.system-monitor.gil.enabled": False,
        "distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": threads, "MALLOC_TRIM_THRESHOLD_": 65536},
    }
    with (
        dask.config.set(settings),
        _quiet(),
        _start(workers) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        try:
            yield Cluster(client, workers)
        finally:
            _dismiss(cluster)


def _start(workers: int) -> LocalCluster:
    """Dask replaces a worker that dies, but not before all have started once."""
    from distributed import LocalCluster

    failure: Exception | None = None
    for _ in range(STARTS):
        try:
            return LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
                security=True,  # other users of this machine reach the port, but cannot talk
                preload="fmnist_exp.tuning.workers.dask",
            )
        except (RuntimeError, TimeoutError) as error:
            failure = error
    raise WorkError(f"the workers end or hang while they start, {STARTS} times: {failure}") from failure


@contextmanager
def remote(address: str, workers: int | None) -> Iterator[Cluster]:
    """The workers of a running scheduler, all of them unless `workers` says fewer.

    Raises:
        RequestError: it does not answer within seconds, has no workers, or workers that run several jobs at once.
    """
    with _client(address) as client:
        try:
            client.wait_for_workers(1, timeout=WORKERS_SECONDS)
        except TimeoutError as error:
            raise RequestError(
                f"the Dask scheduler {address} has no workers; start some with `dask worker {address} --nthreads 1`"
            ) from error
        found = Cluster(client, workers)
        for worker, threads in found.threads().items():
            if threads != 1:
                raise RequestError(
                    f"the Dask worker {worker} would run {threads} trials in one process; start it with --nthreads 1"
                )
        _settle(found)
        try:
            yield found
        finally:
            found.close()


def check(address: str) -> None:
    """Raise RequestError if the scheduler does not answer."""
    _client(address).close()


def _client(address: str) -> Client:
    from distributed import Client

    try:
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError, RuntimeError) as error:
        raise RequestError(
            f"the Dask scheduler {address} does not answer; start one with `dask scheduler` and give its tcp:// address"
        ) from error


def _settle(found: Cluster) -> None:
    """Wait until no more workers join: each takes its share of its host's cores when it begins its first trial."""
    deadline = time.monotonic() + WORKERS_SECONDS
    before: set[str] = set()
    while before != (now := set(found.hosts())) and time.monotonic() < deadline:
        before = now
        time.sleep(SETTLE_SECONDS)


def dask_setup(worker: Worker) -> None:
    """Dask calls this in each local worker: Ctrl-C is for the driver, and MLFLOW_RUN_ID names the driver's own run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    loading.load_keras()
    logging.getLogger("distributed").handlers = [logging.NullHandler()]
    os.environ.pop("MLFLOW_RUN_ID", None)


def _leave(*_signal: Any) -> None:
    """End this process at once, but for Keras' semaphore: else Python would say that it leaked."""
    compat.release_semaphores()
    os._exit(0)


def _dismiss(processes: LocalCluster) -> None:
    """End local workers at once: nothing in them is wanted any more, and Dask would take four seconds."""
    for nanny in processes.workers.values():
        nanny.auto_restart = False
    deadline = time.monotonic() + LEAVE_SECONDS
    left = _signal(processes, signal.SIGTERM)
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = _signal(processes, 0)
    _signal(processes, signal.SIGKILL)


def _signal(processes: LocalCluster, number: int) -> int:
    """Send all local workers a signal, 0 only looks; returns how many are there."""
    there = 0
    for nanny in processes.workers.values():
        with suppress(ProcessLookupError):
            if pid := nanny.pid:
                os.kill(pid, number)
                there += 1
    return there


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of Dask's own in the log, since the driver says what happens to workers, nor in the environment."""
    dask = logging.getLogger("distributed")
    before = dask.handlers, dask.propagate
    added = {"OMP_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_"} - set(os.environ)
    dask.handlers, dask.propagate = [logging.NullHandler()], False
    logging.getLogger("asyncio").addFilter(_is_own)  # for good: it speaks when the collector comes, after the block
    try:
        yield
    finally:
        dask.handlers, dask.propagate = before
        for name in added & set(os.environ):
            del os.environ[name]


def _is_own(record: logging.LogRecord) -> bool:
    """Not an error out of Dask's own code, as what a worker was waiting for when the scheduler closed."""
    steps = traceback.walk_tb(record.exc_info[2] if record.exc_info else None)
    return not any(frame.f_globals.get("__name__", "").startswith("distributed.") for frame, _ in steps)
