"""Pools that run the trials of a search: one after another in this process, or at once on workers of Dask."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError
from fmnist_exp.tuning.workers import connection, jobs, trial
from fmnist_exp.tuning.workers.local import LocalWorkers, threads_of
from fmnist_exp.tuning.workers.messages import Abandoned, Answer, Envelope, Handler, Message, Verdict
from fmnist_exp.tuning.workers.trial import Requirements, Task

# how Dask says that a worker cannot unpickle our functions; it may put the error's text into an Exception of its own
UNKNOWN = re.compile("(Exception: )?(ModuleNotFoundError|AttributeError|ImportError)")


class WorkerPool(Protocol):
    """Workers that run tasks; `size` of them may run at once."""

    @property
    def size(self) -> int:
        """The number of tasks that may run at once."""

    def submit(self, task: Task) -> None:
        """Queue a task for the next free worker."""

    def work(self, handle: Handler, seconds: float) -> None:
        """Let the tasks run until one sends a message, for at most `seconds`. Handle the message and answer it."""

    def drop(self, number: int) -> None:
        """Forget a trial's task: cancel it if it is waiting, or stop it at the end of its epoch if it is running."""

    def has(self, address: str) -> bool:
        """Return True if the worker process with this address still exists."""


class InProcessPool:
    """A pool that runs one trial at a time, in this process."""

    size = 1

    def __init__(self, data: FashionMNIST) -> None:
        self._data = data
        self._task: Task | None = None

    def submit(self, task: Task) -> None:
        """Keep the task for `work`."""
        self._task = task

    def work(self, handle: Handler, seconds: float) -> None:
        """Run the task to its end, however long that takes."""
        task, self._task = self._task, None
        if task is not None:
            with suppress(Abandoned):
                trial.run_here(task, DirectChannel(task.number, handle), self._data)
        else:
            time.sleep(seconds)

    def drop(self, number: int) -> None:
        """Do nothing: the task has ended."""

    def has(self, address: str) -> bool:
        """Return True."""
        return True


class DirectChannel:
    """A channel to a driver in the same process."""

    worker = "driver"
    address = ""

    def __init__(self, number: int, handle: Handler) -> None:
        self._number = number
        self._handle = handle

    def send(self, message: Message) -> None:
        """Send the driver a message."""
        self._handle(Envelope(self._number, "here", message))

    def ask(self, message: Message) -> Answer:
        """Send the driver a message and return its answer. Raises Abandoned."""
        answer = self._handle(Envelope(self._number, "here", message, question=1))
        if answer is None or answer is Verdict.ABANDON:
            raise Abandoned
        return answer


class DaskPool:
    """A pool that runs one trial in each process of a Dask cluster.

    Args:
        cluster: the processes.
        threads: number of threads of each process; None divides its cores by the number of processes that share them.
    """

    def __init__(self, cluster: jobs.Cluster, threads: int | None = None) -> None:
        self._cluster = cluster
        self._threads = threads
        self._cores: dict[str, str] = {}  # worker's address → trial.core_set() there

    @property
    def size(self) -> int:
        """The number of processes that may run trials at once."""
        return self._cluster.size

    def submit(self, task: Task) -> None:
        """Queue a task for the next free process."""
        cores = {} if self._threads else self._core_sets()
        task = dataclasses.replace(task, cores=cores, threads=self._threads)
        self._cluster.submit(task.number, trial.run_on_worker, task)

    def work(self, handle: Handler, seconds: float) -> None:
        """Handle messages in the order in which they came."""
        self._cluster.work(handle, seconds)

    def drop(self, number: int) -> None:
        """Forget a trial's task."""
        self._cluster.drop(number)

    def has(self, address: str) -> bool:
        """Return True if the cluster has a process with this address. A restarted process has a new address."""
        return address in self._cluster.hosts()

    def _core_sets(self) -> dict[str, str]:
        here = self._cluster.hosts()
        if new := here.keys() - self._cores:
            self._cores |= self._cluster.survey(trial.core_set, workers=new)
        return {address: self._cores[address] for address in here if address in self._cores}


@contextmanager
def remote(scheduler: str, workers: int | None, requirements: Requirements) -> Iterator[WorkerPool]:
    """Run trials on the workers of a running Dask scheduler, until the end of the block.

    Args:
        scheduler: address of the scheduler.
        workers: number of trials at once; None stands for one per worker.
        requirements: the conditions that each worker must meet.

    Raises:
        RequestError: the scheduler does not answer, or one of its workers cannot run the trials.
    """
    with connection.remote(scheduler, workers) as cluster:
        _examine(cluster, requirements)
        yield DaskPool(cluster)


def local(workers: LocalWorkers, data: FashionMNIST) -> WorkerPool:
    """Return the pool of these processes; a single worker is this process. Raises WorkError if they cannot start."""
    return InProcessPool(data) if workers.count == 1 else DaskPool(workers.ready(), threads_of(workers.count))


def _examine(cluster: jobs.Cluster, requirements: Requirements) -> None:
    for address, complaint in cluster.survey(trial.complaint, requirements).items():
        if UNKNOWN.match(complaint):
            complaint = f"fmnist_exp is missing or of another version there ({complaint})"
        if complaint:
            raise RequestError(f"the Dask worker {address} cannot run the trials: {complaint}")
