"""When which worker ran which trial, with the time left out in which nobody did: a study may go on days later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fmnist_exp.study_figures import Stretch, Timeline

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

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
