"""Stand-ins for the places where trials run and are tracked: workers in virtual time, and runs without a store."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from mlflow import MlflowClient

from benchmarks.lcbench.ledger import Array, Ledger
from fmnist_exp.tracking import run, writing
from fmnist_exp.tracking.run import Run
from fmnist_exp.tracking.spool.folder import RunHead
from fmnist_exp.tuning import plan
from fmnist_exp.tuning.workers.messages import (
    Begin,
    Envelope,
    EpochEnd,
    Finished,
    Handler,
    Paused,
    Started,
    TrialResult,
    Verdict,
)
from fmnist_exp.tuning.workers.trial import Task

# Of virtual time: long beside what a plan allows for the rest of a trial, and not so long that it is taken for a hang.
EPOCH_SECONDS = 500.0


class VirtualPool:
    """Workers whose epochs take EPOCH_SECONDS of virtual time each, and have the accuracies of a learning curve.

    They tell the driver their speed, so that it plans the search as for real workers.
    """

    def __init__(self, curve: Callable[[Task], Array], ledger: Ledger, size: int = 1) -> None:
        self.size = size
        self.now = 0.0  # epochs since the start of the search
        self._curve, self._ledger = curve, ledger
        self._waiting: list[Task] = []
        self._curves: dict[int, Array] = {}  # of the running trials, by number
        self._paused: dict[int, tuple[Array, int]] = {}  # curves, and epochs done
        self._events: list[tuple[float, int, int, int]] = []  # (time, order, trial, epoch): the ends of epochs
        self._order = itertools.count()

    def clock(self) -> float:
        """Return the virtual time, in seconds."""
        return self.now * EPOCH_SECONDS

    def submit(self, task: Task) -> None:
        """Queue a task for the next free worker."""
        self._waiting.append(task)

    def work(self, handle: Handler, seconds: float) -> None:
        """Begin the tasks for which workers are free; then let the time pass until an epoch ends, and report it."""
        while self._waiting and len(self._curves) < self.size:
            task = self._waiting.pop(0)
            self._begin(task, handle)
            if task.number not in self._curves:  # it only had to come to its result: its worker is free at once
                return
        while self._events and self._events[0][2] not in self._curves:  # of a trial that was dropped
            heapq.heappop(self._events)
        if not self._events:
            return
        self.now, _, number, epoch = heapq.heappop(self._events)
        curve = self._curves[number]
        self._ledger.record(float(curve[epoch - 1]))
        self._go_on(number, epoch, handle)

    def _go_on(self, number: int, epoch: int, handle: Handler) -> None:
        """Report the last epoch of a trial, and do what the driver says."""
        curve = self._curves[number]
        verdict = handle(_envelope(number, EpochEnd(epoch, float(curve[epoch - 1]))))
        if verdict is Verdict.CONTINUE and epoch < len(curve):
            heapq.heappush(self._events, (self.now + 1, next(self._order), number, epoch + 1))
        elif verdict is Verdict.PAUSE:
            self._paused[number] = curve, epoch
            handle(_envelope(number, Paused()))
        elif verdict is not Verdict.ABANDON:
            best = int(curve[:epoch].argmax())
            result = TrialResult(verdict is Verdict.STOP, float(curve[best]), best_epoch=best + 1)
            handle(_envelope(number, Finished(result)))

    def drop(self, number: int) -> None:
        """Forget a trial."""
        self._curves.pop(number, None)

    def has(self, address: str) -> bool:
        """Return True: no worker dies."""
        return True

    def _begin(self, task: Task, handle: Handler) -> None:
        steps = EPOCH_SECONDS / plan.SLOWER  # a plan adds what validation takes
        if not isinstance(handle(_envelope(task.number, Started("virtual", "virtual", seconds=steps))), Begin):
            return
        if task.number in self._paused:
            self._curves[task.number], epoch = self._paused.pop(task.number)
            self._go_on(task.number, epoch, handle)
        else:
            self._ledger.trials += 1
            self._curves[task.number] = self._curve(task)
            heapq.heappush(self._events, (self.now + 1, next(self._order), task.number, 1))


def _envelope(number: int, message: Any) -> Envelope:
    return Envelope(number, f"execution of {number}", message, question=1)


# The driver's experiments have fields of their own; these are the ones that carry LCBench's parameters. Only their
# ranges matter: nothing is trained with them.
CARRIERS = {
    "batch_size": "training.batch_size",
    "learning_rate": "training.learning_rate",
    "momentum": "training.momentum",
    "weight_decay": "training.weight_decay",
    "num_layers": "model.kernel_size",
    "max_units": "data.split_seed",
    "max_dropout": "model.l2",
}


def settings_of(task: Task) -> dict[str, float]:
    """Return the values of LCBench's parameters in a task's experiment."""
    sections = task.config.model_dump(include={"data", "model", "training"})
    paths = {name: field.split(".") for name, field in CARRIERS.items()}
    return {name: float(sections[section][field]) for name, (section, field) in paths.items()}


class NoSpool:
    """The part of a run's spool that the driver's runs use; it keeps nothing."""

    id = "untracked"

    def append(self, kind: str, body: Mapping[str, object], files: Path | None = None) -> int:
        """Drop the record."""
        return 0

    def wait(self, number: int) -> bool:
        """Return True."""
        return True

    def close(self) -> None:
        """Do nothing."""


class NoSender:
    """The part of a sender that runs use; it sends nothing."""

    offline = True

    def open(self, client: MlflowClient, head: RunHead) -> NoSpool:
        """Return a spool that keeps nothing."""
        return NoSpool()


@contextmanager
def untracked() -> Iterator[Run]:
    """Yield a parent run that is stored nowhere, like all runs that this process starts in the block."""
    places = run, writing
    real = [place.sender for place in places]
    try:
        for place in places:
            place.sender = cast("Any", NoSender)
        yield Run(cast("MlflowClient", None), RunHead(NoSpool.id, "0", "tune", "", ""))
    finally:
        for place, found in zip(places, real, strict=True):
            place.sender = found
