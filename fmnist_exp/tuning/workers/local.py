"""Dask clusters: start processes on this machine, or connect to the workers of a running scheduler."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import dask
from distributed import Client, LocalCluster, Worker

from fmnist_exp.backend import loading
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.tracking import failures
from fmnist_exp.tuning.workers import connection
from fmnist_exp.tuning.workers.jobs import Cluster

WORKERS_SECONDS = 30  # a scheduler may be there before its workers
SETTLE_SECONDS = 2  # without a new worker: all are there
STARTS = 3  # attempts to start local workers
LEAVE_SECONDS = 2  # for a worker to end


@contextmanager
def local(workers: int, threads: int) -> Iterator[Cluster]:
    """Start worker processes on this machine. They end when this process ends.

    Args:
        workers: number of processes.
        threads: number of threads that each of them computes with.

    Raises:
        WorkError: the processes end while they start.
    """
    settings: dict[str, object] = {
        "distributed.scheduler.allowed-failures": 2,
        "distributed.deploy.lost-worker-timeout": "1 hour",  # for a busy machine to replace a worker; else it has none
        "distributed.scheduler.worker-saturation": 1.0,  # jobs wait at the scheduler: none dies with another one
        "distributed.scheduler.work-stealing": False,
        "distributed.scheduler.active-memory-manager.start": False,
        "distributed.scheduler.http.routes": [],  # its pages would show the log to other users of this machine
        "distributed.worker.http.routes": [],
        "distributed.worker.profile.enabled": False,
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.admin.system-monitor.gil.enabled": False,
        "distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": threads, "MALLOC_TRIM_THRESHOLD_": 65536},
    }
    with (
        dask.config.set(settings),
        quiet(),
        _start(workers) as processes,
        Client(processes, set_as_default=False) as client,
    ):
        try:
            yield Cluster(client, workers)
        finally:
            _end(processes)


def _start(workers: int) -> LocalCluster:
    """Start the processes. Dask replaces a process that dies, but only after all have started once."""
    failure: Exception | None = None
    for _ in range(STARTS):
        try:
            return LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",
                scheduler_kwargs={"dashboard": False},
                silence_logs=logging.CRITICAL,
                security=True,  # other users of this machine reach the port, but cannot talk
                preload="fmnist_exp.tuning.workers.dask",
            )
        except (RuntimeError, TimeoutError) as error:
            failure = error
    raise WorkError(f"the workers end or hang while they start, {STARTS} times: {failure}") from failure


@contextmanager
def remote(address: str, workers: int | None) -> Iterator[Cluster]:
    """Connect to the workers of a running scheduler.

    Args:
        address: address of the scheduler.
        workers: number of trials at once; None stands for one per worker.

    Raises:
        RequestError: the scheduler does not answer or has no workers, or a worker would run several trials at once.
    """
    with connection.connect(address) as client:
        try:
            client.wait_for_workers(1, timeout=WORKERS_SECONDS)
        except TimeoutError as error:
            raise RequestError(
                f"the Dask scheduler {address} has no workers; start some with `dask worker {address} --nthreads 1`"
            ) from error
        cluster = Cluster(client, workers)
        for worker, threads in cluster.threads().items():
            if threads != 1:
                raise RequestError(
                    f"the Dask worker {worker} would run {threads} trials in one process; start it with --nthreads 1"
                )
        _wait_for_all(cluster)
        try:
            yield cluster
        finally:
            cluster.close()


def _wait_for_all(cluster: Cluster) -> None:
    """Wait until no more workers join, because each takes its share of its host's cores when its first trial begins."""
    deadline = time.monotonic() + WORKERS_SECONDS
    before: set[str] = set()
    while before != (now := set(cluster.hosts())) and time.monotonic() < deadline:
        before = now
        time.sleep(SETTLE_SECONDS)


def dask_setup(worker: Worker) -> None:
    """Prepare a local worker; Dask calls this. Workers ignore Ctrl-C and MLFLOW_RUN_ID, which are for the driver."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    failures.install()
    loading.load_keras()
    forget_names()
    logging.getLogger("distributed").handlers = [logging.NullHandler()]
    os.environ.pop("MLFLOW_RUN_ID", None)


def forget_names() -> None:
    """Let the semaphores of this worker have no names, so that nothing is left of them if it is killed.

    Keras makes one for its first fit, in the way in which this process was started: by `spawn`, where semaphores have
    names. If they are not deleted, the driver's Python ends with a warning of leaked semaphores.
    """
    if "fork" in multiprocessing.get_all_start_methods():
        multiprocessing.set_start_method("fork", force=True)


def _leave(*_signal: object) -> None:
    """End this process at once."""
    os._exit(0)


def _end(processes: LocalCluster) -> None:
    """End local workers at once; Dask itself would need four seconds."""
    for nanny in processes.workers.values():
        nanny.close_gracefully()  # or it would replace its worker, and wait until the new one has started
    deadline = time.monotonic() + LEAVE_SECONDS
    left = _signal(processes, signal.SIGTERM)
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = _signal(processes, 0)
    _signal(processes, signal.SIGKILL)


def _signal(processes: LocalCluster, number: int) -> int:
    """Send a signal to all local workers (0 sends none), and return how many workers there are."""
    count = 0
    for nanny in processes.workers.values():
        with suppress(ProcessLookupError):
            if pid := nanny.pid:
                os.kill(pid, number)
                count += 1
    return count


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Dask's messages out of the log, since the driver reports on workers, and its settings out of os.environ."""
    log = logging.getLogger("distributed")
    before = log.handlers, log.propagate
    added = {"OMP_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_"} - set(os.environ)
    log.handlers, log.propagate = [logging.NullHandler()], False
    logging.getLogger("asyncio").addFilter(_is_not_of_dask)  # for good: asyncio logs when the collector runs
    try:
        yield
    finally:
        log.handlers, log.propagate = before
        for name in added & set(os.environ):
            del os.environ[name]


def _is_not_of_dask(record: logging.LogRecord) -> bool:
    """Return False for an error raised inside Dask, for example by a request that waited when the scheduler closed."""
    if f"{os.sep}distributed{os.sep}" in record.getMessage():  # the coroutine's file; its error may have no traceback
        return False
    steps = traceback.walk_tb(record.exc_info[2] if record.exc_info else None)
    return not any(frame.f_globals.get("__name__", "").startswith("distributed.") for frame, _ in steps)
