"""Worker processes of this machine, which start while the driver loads Keras and the images."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import forkserver

import dask
from dask.system import cpu_count
from distributed import Client, LocalCluster, Worker
from distributed.system import memory_limit

from fmnist_exp.compat import forking
from fmnist_exp.errors import WorkError
from fmnist_exp.tracking import failures
from fmnist_exp.tuning.workers.jobs import Cluster
from fmnist_exp.tuning.workers.quiet import VARIABLES, environment_kept, quiet

WORKER_BYTES = 2 * 2**30  # of memory that a process of a search may need: measured 1.2 to 1.9 GiB
STARTS = 3  # attempts to start local workers
LEAVE_SECONDS = 2  # for a worker to end
LOADED = "fmnist_exp.tuning.workers.loaded"

log = logging.getLogger(__name__)


class LocalWorkers:
    """Worker processes of this machine that have begun to start.

    Args:
        count: number of processes; none is started for a single worker, which is this process.
        method: the way in which Python starts them: forkserver or spawn.
    """

    def __init__(self, count: int, method: str) -> None:
        self.count = count
        self._method = method
        self._stack = ExitStack()
        self._is_wanted = True
        self._processes: futures.Future[LocalCluster] = futures.Future()
        if count == 1:
            return
        if method == "forkserver":
            for name, value in _environment(count).items():
                os.environ.setdefault(name, value)
            multiprocessing.set_forkserver_preload([LOADED])
            forkserver.ensure_running()
        executor = futures.ThreadPoolExecutor(1)
        self._processes = executor.submit(self._start)
        executor.shutdown(wait=False)
        # processes that are spawned take over the environment and the standard error that the driver has until then
        while method == "spawn" and len(multiprocessing.active_children()) < count and not self._processes.done():
            time.sleep(0.01)

    def ready(self) -> Cluster:
        """Wait until all processes have started, and return them. Call it once.

        Raises:
            WorkError: the processes end while they start.
        """
        processes = self._processes.result()
        return Cluster(self._stack.enter_context(Client(processes, set_as_default=False)), self.count)

    def end(self) -> None:
        """End the processes, also those that have not started yet."""
        if self.count == 1:
            return
        self._is_wanted = False
        while not self._processes.done():
            self._end_server()
            for child in multiprocessing.active_children():
                child.kill()
            futures.wait([self._processes], timeout=0.05)
        if self._processes.exception() is None:
            with self._processes.result() as processes, self._stack:
                _end(processes)
        self._end_server()

    def _end_server(self) -> None:
        """End the server from which the processes were forked: another search may have another environment."""
        if self._method == "forkserver":
            forking.end()

    def _start(self) -> LocalCluster:
        """Start the processes. Dask replaces a process that dies, but only after all have started once."""
        failure: Exception | None = None
        for _ in range(STARTS):
            try:
                return LocalCluster(
                    n_workers=self.count,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address="127.0.0.1:0",
                    scheduler_kwargs={"dashboard": False},
                    silence_logs=logging.CRITICAL,
                    security=True,  # other users of this machine reach the port, but cannot talk
                    preload=__name__,
                )
            except (RuntimeError, TimeoutError) as error:
                failure = error
            if not self._is_wanted:
                break
        raise WorkError(f"the workers end or hang while they start, {STARTS} times: {failure}") from failure


@contextmanager
def starting(workers: int | None) -> Iterator[LocalWorkers]:
    """Begin to start worker processes on this machine. They end with the block, or when this process ends.

    Args:
        workers: number of processes; None stands for the result of `affordable`.
    """
    count, method = workers or affordable(), _method()
    with dask.config.set(_settings(count, method)), quiet():
        with environment_kept():
            started = LocalWorkers(count, method)
        try:
            yield started
        finally:
            started.end()


def affordable() -> int:
    """Return the number of workers for this machine: one per core, if there are 2 GiB of memory for each."""
    cores, memory = cpu_count(), memory_limit()
    count = max(1, min(cores, memory // WORKER_BYTES))
    if count < cores:
        log.warning(
            "%d workers for %d cores: each may need 2 GiB, and there are %.1f GiB", count, cores, memory / 2**30
        )
    return count


def threads_of(workers: int) -> int:
    """Return the number of threads that each of these workers of this machine computes with."""
    return max(1, cpu_count() // workers)


def _environment(workers: int) -> dict[str, str]:
    """Return the variables of this many workers."""
    return dict(zip(VARIABLES, (str(threads_of(workers)), "65536"), strict=True))


def _method() -> str:
    """Return the way in which Python starts the processes.

    Forked ones share what their server has imported, Keras above all. On macOS they may crash in libraries of the
    system, and a server that is there already belongs to somebody else.
    """
    return "forkserver" if sys.platform == "linux" and forking.server() is None else "spawn"


def _settings(workers: int, method: str) -> dict[str, object]:
    """Return Dask's settings for this many workers."""
    return {
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
        "distributed.nanny.pre-spawn-environ": _environment(workers),
        "distributed.worker.multiprocessing-method": method,
    }


def dask_setup(worker: Worker) -> None:
    """Prepare a local worker; Dask calls this. Workers ignore Ctrl-C and MLFLOW_RUN_ID, which are for the driver."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    failures.install()
    importlib.import_module(LOADED)
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
