"""The content of a study's timeline: when each trial ran, and on which worker."""

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from fmnist_exp.tuning.report import selection

DRIVER = "driver"  # the worker of a trial that names none
PAUSE = 60.0  # seconds without any trial after which the timeline skips to the next one


@dataclass(frozen=True)
class Stretch:
    """A trial's bar on the timeline."""

    number: int
    worker: str
    state: str  # COMPLETE, PRUNED or FAIL
    start: float  # minutes
    length: float  # minutes


@dataclass(frozen=True)
class Timeline:
    """The trials in the order of their starts, and the minutes at which pauses without any trial were left out."""

    stretches: Sequence[Stretch]
    cuts: Sequence[float]
    total: int = 0  # number of trials, including those that the figure of a long study leaves out

    @property
    def label(self) -> str:
        """The title of the axis of time."""
        return "minutes" + (", pauses left out" if self.cuts else "")


def prepare(trials: Sequence[FrozenTrial]) -> Timeline:
    """Return the ended trials as stretches of time, without the pauses between two sessions of a search."""
    times = sorted(
        (trial.datetime_start.timestamp(), trial.datetime_complete.timestamp(), trial.number, trial)
        for trial in trials
        if trial.state.is_finished() and trial.datetime_start and trial.datetime_complete
    )
    total, times = len(times), times[-selection.SHOWN :]
    stretches: list[Stretch] = []
    cuts: list[float] = []
    zero = busy_until = times[0][0] if times else 0.0
    for start, end, number, trial in times:
        if start - busy_until > PAUSE:
            zero += start - busy_until
            cuts.append((start - zero) / 60)
        busy_until = max(busy_until, end)
        worker = str(trial.user_attrs.get("worker", DRIVER))
        stretches.append(Stretch(number, worker, trial.state.name, (start - zero) / 60, (end - start) / 60))
    return Timeline(stretches, cuts, total)
