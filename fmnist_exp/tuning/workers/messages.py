"""The messages of an execution of a trial to its driver, and the driver's answers.

A trial may run more than once, since Dask starts it again elsewhere when its worker dies. Each execution has an id of
its own, by which the driver tells them apart, and continues the trial's one run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from fmnist_exp.tracking.spool.folder import RunHead


@dataclass(frozen=True)
class TrialResult:
    """The measurements of a trial, and the model that it logged, if any."""

    stopped: bool  # by the driver, before its last epoch
    val_accuracy: float
    parameters: int | None = None
    prediction_seconds: float | None = None
    model_id: str = ""
    best_epoch: int | None = None

    def measured(self) -> dict[str, float | int | str]:
        """Return the measured values of the trial by name."""
        return {name: value for name, value in vars(self).items() if name != "stopped" and value not in ("", None)}


@dataclass(frozen=True)
class Started:
    """An execution is about to begin; it waits for a `Begin`."""

    worker: str  # its name, which stays the same when its process is replaced
    address: str  # of its process
    slow: str = ""  # why the worker computes slowly in the search's precision; empty if it does not
    seconds: float | None = None  # that the steps of an epoch take there, if the task asks for it


@dataclass(frozen=True)
class Progress:
    """Some steps of the fit are done."""

    epochs: float  # done, with the part of the current one


@dataclass(frozen=True)
class EpochEnd:
    """An epoch is done; the execution waits for a `Verdict`."""

    epoch: int  # counted from 1
    val_accuracy: float


@dataclass(frozen=True)
class Finished:
    """The trial is done, or it stopped because the driver said so."""

    result: TrialResult


@dataclass(frozen=True)
class Paused:
    """The execution has ended, and kept the state of the training, from which another one may go on."""


@dataclass(frozen=True)
class Failed:
    """The trial failed with an error."""

    reason: str
    full_disk: bool = False


@dataclass(frozen=True)
class Unreachable:
    """The execution ended because a server did not answer, which says nothing about the trial's setting."""

    reason: str


@dataclass(frozen=True)
class Unfit:
    """The worker cannot run trials of this search."""

    reason: str


@dataclass(frozen=True)
class Died:
    """The worker's process died; Dask reports it."""


@dataclass(frozen=True)
class Lost:
    """The worker got no answer and gave the execution up; Dask reports it."""


@dataclass(frozen=True)
class Broken:
    """The worker could not call the trial's function at all; Dask reports it."""

    reason: str


Message = Started | Progress | EpochEnd | Finished | Paused | Failed | Unreachable | Unfit | Died | Lost | Broken


class Verdict(Enum):
    """The driver's decision after an epoch."""

    CONTINUE = "continue"
    STOP = "stop"  # end as after the last epoch
    PAUSE = "pause"  # keep the state of the training and end without a result
    ABANDON = "abandon"  # nobody wants the result


@dataclass(frozen=True)
class Begin:
    """The execution may begin, and logs to this run, which an earlier execution may have begun."""

    run: RunHead
    epochs: int  # of the whole trial; the search may have been planned since the task was submitted
    resumed: bool = False
    logged: int = 0  # epochs whose metrics an execution that paused has logged; they may be on their way to the store


Answer = Begin | Verdict


class Abandoned(Exception):  # noqa: N818 — it is no error of the trial
    """The trial's result is no longer wanted, or the driver does not answer."""


@dataclass(frozen=True)
class Envelope:
    """A message with its sender. `question` numbers the messages that wait for an answer; it is 0 for all others."""

    trial: int
    execution: str  # empty if Dask reports
    message: Message
    question: int = 0


Handler = Callable[[Envelope], Answer | None]


class Channel(Protocol):
    """The connection of an execution with the driver."""

    worker: str
    address: str

    def send(self, message: Message) -> None:
        """Send the driver a message."""

    def ask(self, message: Message) -> Answer:
        """Send the driver a message and return its answer. Raises Abandoned."""
