"""What the figures of a study show, prepared once for both ways to draw it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class TrialPoints:
    """What the figures show of one trial: `accuracies` is validation accuracy by epoch."""

    number: int
    pruned: bool
    accuracies: Mapping[int, float]
    parameters: Mapping[str, float]

    @property
    def best(self) -> float:
        """The highest validation accuracy of any epoch."""
        return max(self.accuracies.values())


@dataclass(frozen=True)
class Stretch:
    """A trial's place on the timeline; `start` and `end` in seconds."""

    number: int
    worker: str
    state: str  # COMPLETE, PRUNED, FAIL
    start: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """Stretches in order of their starts, and where time without any trial was left out, in seconds."""

    stretches: Sequence[Stretch]
    cuts: Sequence[float]


DRIVER = "driver"  # where a trial ran that names no worker
PAUSE = 60.0  # seconds without any trial after which the timeline skips to the next one


def timeline(trials: Sequence[FrozenTrial]) -> Timeline:
    """The ended trials as stretches of time."""
    times = sorted(
        (trial.datetime_start.timestamp(), trial.datetime_complete.timestamp(), trial.number, trial)
        for trial in trials
        if trial.state.is_finished() and trial.datetime_start and trial.datetime_complete
    )
    found: list[Stretch] = []
    cuts: list[float] = []
    zero = busy_until = times[0][0] if times else 0.0
    for start, end, number, trial in times:
        if start - busy_until > PAUSE:
            zero += start - busy_until
            cuts.append(start - zero)
        busy_until = max(busy_until, end)
        worker = str(trial.user_attrs.get("worker", DRIVER))
        found.append(Stretch(number, worker, trial.state.name, start - zero, end - zero))
    return Timeline(found, cuts)
