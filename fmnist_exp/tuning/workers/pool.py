"""Where a search's trials run: one after another in this process, or several at once in workers."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from fmnist_exp.backend import machine
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError
from fmnist_exp.tuning.workers import dask as dask_workers
from fmnist_exp.tuning.workers import jobs, trial
from fmnist_exp.tuning.workers.jobs import Hear, Message
from fmnist_exp.tuning.workers.trial import Place, Task

# how Dask says that a worker cannot unpickle our functions; it may put the error's text into an Exception of its own
UNKNOWN = re.compile("(Exception: )?(ModuleNotFoundError|AttributeError|ImportError)")
WORKER_BYTES = 2 * 2**30  # of memory that a process of a search may need: measured 1.2 to 1.9 GiB

log = logging.getLogger(__name__)


class Crew(Protocol):
    """Runs tasks. `size`: how many at once."""

    @property
    def size(self) -> int:
        """How many tasks may be in progress."""

    def start(self, task: Task) -> None:
        """Have the task run."""

    def work(self, hear: Hear, seconds: float) -> None:
        """Let the tasks go on until one of them says something, `seconds` at most; `hear` gets it, and answers."""

    def drop(self, number: int) -> None:
        """Forget a trial's task; it is stopped when it next asks."""

    def has(self, address: str) -> bool:
        """Whether the worker is still there."""


class Alone:
    """Runs one trial at a time, in this process."""

    size = 1

    def __init__(self, data: FashionMNIST) -> None:
        self._data = data
        self._task: Task | None = None

    def start(self, task: Task) -> None:
        """Keep the task for `work`."""
        self._task = task

    def work(self, hear: Hear, seconds: float) -> None:
        """Run the task to its end, however long that takes."""
        task, self._task = self._task, None
        if task is not None:
            trial.run_here(task, _Direct(str(task.number), hear), self._data)

    def drop(self, number: int) -> None:
        """Nothing of it is left."""

    def has(self, address: str) -> bool:
        """This process is."""
        return True


class _Direct:
    """A line to a driver in the same process."""

    place = "driver"
    address = ""

    def __init__(self, job: str, hear: Hear) -> None:
        self._job = job
        self._hear = hear

    def say(self, kind: str, **body: Any) -> None:
        self._hear(Message(self._job, "here", 0, kind, body))

    def ask(self, kind: str, **body: Any) -> Mapping[str, Any]:
        return self._hear(Message(self._job, "here", 0, kind, body)) or jobs.GONE


class Workers:
    """Runs trials in the processes of a Dask cluster, one in each, with the threads that are each one's share."""

    def __init__(self, processes: jobs.Cluster, threads: int | None = None) -> None:
        self._processes = processes
        self._threads = threads  # of each worker; None: its cores, divided by the workers that share them
        self._cores: dict[str, str] = {}  # worker's address → machine.core_set() there

    @property
    def size(self) -> int:
        """How many workers there are, or may be used."""
        return self._processes.size

    def start(self, task: Task) -> None:
        """Queue the task for the next free worker."""
        cores = {} if self._threads else self._core_sets()
        task = dataclasses.replace(task, cores=cores, threads=self._threads)
        self._processes.start(str(task.number), trial.run_on_worker, task)

    def work(self, hear: Hear, seconds: float) -> None:
        """Hear of the trials in the order of their messages."""
        self._processes.work(hear, seconds)

    def drop(self, number: int) -> None:
        """Cancel it if it waits, stop it at the end of its epoch if it runs."""
        self._processes.drop(str(number))

    def has(self, address: str) -> bool:
        """Whether the cluster knows it; a process that is started again has another address."""
        return address in self._processes.hosts()

    def _core_sets(self) -> dict[str, str]:
        here = self._processes.hosts()
        if new := here.keys() - self._cores:
            self._cores |= self._processes.survey(machine.core_set, workers=new)
        return {address: self._cores[address] for address in here if address in self._cores}


@contextmanager
def hire(workers: int | None, scheduler: str | None, data: FashionMNIST, place: Place) -> Iterator[Crew]:
    """The workers for a search, for as long as the block lasts.

    Args:
        workers: how many; None: one per core if there are 2 GiB of memory for each, or all that the scheduler has.
        scheduler: address of a running Dask scheduler; None: processes of this machine.
        data: the driver's, for trials in its own process.
        place: what each worker must have.

    Raises:
        RequestError: the scheduler does not answer, or one of its workers cannot run the trials.
    """
    if scheduler is not None:
        with dask_workers.remote(scheduler, workers) as processes:
            _examine(processes, place)
            yield Workers(processes)
        return
    count = workers or _affordable(machine.cores())
    if count == 1:
        yield Alone(data)
        return
    threads = max(1, machine.cores() // count)
    with dask_workers.local(count, threads) as processes:
        yield Workers(processes, threads)


def check(scheduler: str | None) -> None:
    """Raise RequestError if this scheduler does not answer."""
    if scheduler is not None:
        dask_workers.check(scheduler)


def _affordable(cores: int) -> int:
    """One worker per core, or fewer where memory is short."""
    count = max(1, min(cores, machine.memory() // WORKER_BYTES))
    if count < cores:
        size = f"{machine.memory() / 2**30:.1f} GiB"
        log.warning("%d workers for %d cores: each may need 2 GiB, and there are %s", count, cores, size)
    return count


def _examine(processes: jobs.Cluster, place: Place) -> None:
    survey: Callable[[Place], str] = trial.examine
    for address, complaint in processes.survey(survey, place).items():
        if UNKNOWN.match(complaint):
            complaint = f"fmnist_exp is missing or of another version there ({complaint})"
        if complaint:
            raise RequestError(f"the Dask worker {address} cannot run the trials: {complaint}")
