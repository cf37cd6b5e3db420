"""The content of a study's timeline: when each trial ran, and on which worker."""

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from fmnist_exp.tuning.record import TrialRecord
from fmnist_exp.tuning.report import selection

DRIVER = "driver"  # the worker of a trial that names none
PAUSE = 60.0  # seconds without any trial after which the timeline skips to the next one


@dataclass(frozen=True)
class Stretch:
    """A trial's bar on the timeline; a trial that paused has several."""

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
    ended = [
        trial for trial in trials if trial.state.is_finished() and trial.datetime_start and trial.datetime_complete
    ]
    ended.sort(key=lambda trial: (trial.datetime_start, trial.datetime_complete, trial.number))
    total, shown = len(ended), ended[-selection.SHOWN :]
    times = sorted((start, end, trial.number, worker, trial) for trial in shown for worker, start, end in _parts(trial))
    stretches: list[Stretch] = []
    cuts: list[float] = []
    zero = busy_until = times[0][0] if times else 0.0
    for start, end, number, worker, trial in times:
        if start - busy_until > PAUSE:
            zero += start - busy_until
            cuts.append((start - zero) / 60)
        busy_until = max(busy_until, end)
        stretches.append(Stretch(number, worker, trial.state.name, (start - zero) / 60, (end - start) / 60))
    return Timeline(stretches, cuts, total)


def _parts(trial: FrozenTrial) -> Sequence[tuple[str, float, float]]:
    """Return the worker, the beginning and the end of each part of a trial, in seconds since 1970."""
    assert trial.datetime_start is not None
    assert trial.datetime_complete is not None
    whole = str(trial.user_attrs.get("worker", DRIVER)), trial.datetime_start.timestamp()
    return TrialRecord.of(trial).stretches or [(*whole, trial.datetime_complete.timestamp())]
