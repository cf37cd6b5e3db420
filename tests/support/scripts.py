"""A pool of workers whose messages a test writes as a script, and what a driver needs to work with it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from fmnist_exp.tracking import store
from fmnist_exp.tracking.run import Run
from fmnist_exp.tuning.workers import trial
from fmnist_exp.tuning.workers.messages import (
    Answer,
    Died,
    Envelope,
    EpochEnd,
    Finished,
    Handler,
    Lost,
    Paused,
    Started,
    TrialResult,
    Unreachable,
)


class Script:
    """A pool of one worker whose messages a test writes; it keeps the answers."""

    size = 1

    def __init__(self, *messages: Envelope) -> None:
        self.messages = list(messages)
        self.answers: list[Answer | None] = []
        self.started: list[int] = []
        self.dropped: list[int] = []
        self.addresses = {"tcp://one"}

    def submit(self, task: trial.Task) -> None:
        self.started.append(task.number)

    def work(self, handle: Handler, seconds: float) -> None:
        if self.messages:
            self.answers.append(handle(self.messages.pop(0)))

    def drop(self, number: int) -> None:
        self.dropped.append(number)

    def has(self, address: str) -> bool:
        return address in self.addresses


class Clock:
    """Time that a test can let pass."""

    def __init__(self) -> None:
        self.ahead = 0.0  # seconds

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


class Slow(Script):
    """A script that has a minute between two messages."""

    def __init__(self, clock: Clock, *messages: Envelope) -> None:
        super().__init__(*messages)
        self.clock = clock

    def work(self, handle: Handler, seconds: float) -> None:
        super().work(handle, seconds)
        self.clock.ahead += 60


class Interrupted(Script):
    """A script after whose messages the driver is interrupted."""

    def work(self, handle: Handler, seconds: float) -> None:
        if not self.messages:
            raise KeyboardInterrupt
        super().work(handle, seconds)


class Late(Script):
    """A script whose messages, but for the first, come when the time is over."""

    def __init__(self, script: Script, clock: Clock) -> None:
        super().__init__(*script.messages)
        self.first = True
        self.clock = clock

    def work(self, handle: Handler, seconds: float) -> None:
        if not self.first:
            self.clock.ahead += seconds
            if seconds > 0.01:
                return
        self.first = False
        super().work(handle, seconds)


@dataclass(frozen=True)
class Stage:
    """A new study, and how to have a driver work on it: with seconds until the time is over, and a number of trials."""

    study: optuna.Study
    parent: Run
    drive: Callable[..., None]
    clock: Clock
    notices: list[str]


def others(stage: Stage, *curves: Sequence[float]) -> None:
    """Add trials to the study that were pruned after these curves."""
    for curve in curves:
        reported = dict(enumerate(curve, 1))
        stage.study.add_trial(create_trial(state=TrialState.PRUNED, intermediate_values=reported))


def run_of(stage: Stage, number: int = 0) -> Any:
    """Return the MLflow run of a trial."""
    return store.client().get_run(stage.study.trials[number].user_attrs["run_id"])


# messages


def start(
    execution: str, address: str = "tcp://one", slow: str = "", number: int = 0, seconds: float | None = None
) -> Envelope:
    return Envelope(number, execution, Started("one", address, slow, seconds), 1)


def epochs(execution: str, *accuracies: float, number: int = 0, first: int = 1) -> list[Envelope]:
    curve = enumerate(accuracies, first)
    return [Envelope(number, execution, EpochEnd(epoch, accuracy), 2) for epoch, accuracy in curve]


def pause(execution: str, number: int = 0) -> Envelope:
    return Envelope(number, execution, Paused())


def end(execution: str, stopped: bool = False, number: int = 0) -> Envelope:
    return Envelope(number, execution, Finished(TrialResult(stopped, 0.5, parameters=1)))


def away(execution: str) -> Envelope:
    return Envelope(0, execution, Unreachable("the tracking server does not answer"))


LOST, DIED = Envelope(0, "", Lost()), Envelope(0, "", Died())
