"""Fit a search into its time limit, at the speed of its trials: how many settings it compares, and when."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from fmnist_exp.config.schema import ExperimentConfig

ENOUGH = 12  # settings for which the rungs of the experiment are changed, if it wants at least as many
FACTORS = 3, 4, 6, 12  # of successive halving, where that of the experiment lets too many trials go on
SPAN = 5.0  # seconds of steps after which the speed of a trial is known
SLOWER = 1.1  # an epoch takes longer than its steps, since it is validated
ALONE = 0.6  # speed of one fit on all cores, in that of all workers together: 1 / 1.75 on two cores
TRIAL_SECONDS = 2.0  # beside its epochs: the network is built, and what it has learned is logged


@dataclass(frozen=True)
class Plan:
    """A plan: the settings that a search begins, and the rounds in which it compares them."""

    settings: int  # that it begins
    first: int  # epochs before the first rung
    factor: int  # of successive halving
    rounds: tuple[int, ...]  # epochs that a trial has at the end of each round

    @property
    def text(self) -> str:
        """The plan in words."""
        settings = "1 setting" if self.settings == 1 else f"{self.settings} settings"
        if len(self.rounds) == 1:
            return f"{settings} of {_epochs(self.rounds[0])}"
        ends = f"{', '.join(map(str, self.rounds[:-1]))} and {_epochs(self.rounds[-1])}"
        return f"{settings} in {len(self.rounds)} rounds, which end after {ends}"


class Pace:
    """The mean speed of the first trials, from the steps that they report.

    Settings differ in their cost, so that the speed of a single small network would promise too much.
    """

    def __init__(self) -> None:
        self._begun: dict[str, tuple[float, float]] = {}  # by execution: time and epochs of its first report
        self._speeds: dict[str, float] = {}  # by execution: seconds per epoch
        self._spans: dict[str, float] = {}  # by execution: seconds in which this was measured

    def observe(self, execution: str, epochs: float, now: float, trials: int) -> float | None:
        """Return the seconds that an epoch takes, once `trials` trials have reported SPAN seconds of steps.

        When one of them ends its first epoch, which the plan may judge, a shorter time of the others will do. Before,
        or if some trial has not shown any speed yet, the result is None.
        """
        then, done = self._begun.setdefault(execution, (now, epochs))
        if epochs > done:
            self._speeds[execution] = SLOWER * (now - then) / (epochs - done)
            self._spans[execution] = now - then
        enough = 0.0 if epochs == 1 and self._spans.get(execution, 0.0) >= SPAN else SPAN
        known = [span for span in self._spans.values() if span >= enough]
        return statistics.mean(self._speeds.values()) if len(known) >= trials else None


def make(config: ExperimentConfig, most: int, affordable: float, overhead: float) -> Plan:
    """Return the plan for the time that is left.

    The rungs are those of the experiment if as many settings as wanted can be begun: `most`, or ENOUGH if that is less.
    Otherwise the first rung moves to an earlier epoch. If that does not suffice, no more than those are begun, for an
    epoch each, and the time that is left goes to the best of them: to its final fit, if the experiment has one, and
    otherwise to its trial. In a search without a final fit, fewer trials may pass each rung before it comes to that.

    Args:
        config: the experiment, with its `search`.
        most: settings that may be begun.
        affordable: epochs that all workers together can train until the trials must end.
        overhead: epochs that a worker could train in the time that a trial takes beside its epochs.
    """
    search, epochs = config.search, config.training.epochs
    assert search is not None
    if search.pruner == "none":
        return Plan(_count((epochs,), 1, most, affordable, overhead), epochs, 1, (epochs,))
    own = search.reduction_factor
    larger = [factor for factor in FACTORS if factor > own and not config.final]
    for first, factor in [*((first, own) for first in range(search.min_epochs, 0, -1)), *((1, f) for f in larger)]:
        rounds = rungs(first, factor, epochs)
        settings = _count(rounds, factor, most, affordable, overhead)
        if settings >= min(most, ENOUGH):
            return Plan(settings, first, factor, rounds)
    most = min(most, ENOUGH)
    return Plan(_count((1,), 1, most, affordable, overhead), 1, max([own, *FACTORS]), (1,))


def winner_text(config: ExperimentConfig, affordable: float) -> str:
    """Return what the plan says of the final fit, if all workers together could train `affordable` epochs meanwhile."""
    if config.final is None:
        return ""
    wanted = int(config.final.get("training.epochs", config.training.epochs))
    return f", then up to {_epochs(max(1, min(wanted, int(affordable * ALONE))))} for the winner"


def rungs(first: int, factor: int, epochs: int) -> tuple[int, ...]:
    """Return the epochs at which successive halving judges trials of this length, and at last the length itself."""
    found = []
    while first < epochs:
        found.append(first)
        first *= factor
    return (*found, epochs)


def _count(rounds: tuple[int, ...], factor: int, most: int, affordable: float, overhead: float) -> int:
    """Return how many settings can go through these rounds, at least one."""
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _cost(middle, rounds, factor, overhead) <= affordable else (low, middle - 1)
    return low


def _cost(settings: int, rounds: tuple[int, ...], factor: int, overhead: float) -> float:
    """Return the epochs that these settings take, with the whole trial of the experiment's own setting."""
    total, done, count = settings * overhead, 0, settings
    for end in rounds:
        total += count * (end - done)
        done, count = end, max(1, count // factor)
    return total + rounds[-1] - rounds[0]


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"
