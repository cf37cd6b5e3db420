"""Fit a search into its time limit, at the speed of its workers: how many settings it compares, and how.

Where time is short and the experiment has a final fit, a trial becomes a complete schedule of fewer epochs. It ranks
settings better than the first epochs of a longer schedule, whose learning rate is still high then: at the cost of one
epoch of `tune_cnn`, Spearman's correlation with the final fit is 0.77 instead of 0.55 (24 settings,
docs/log/2026-11-25-cheap-scores.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from fmnist_exp.config.schema import ExperimentConfig

ENOUGH = 12  # settings for which trials are shortened or judged earlier, if the search wants at least as many
FACTORS = 3, 4, 6, 12  # of successive halving, where that of the experiment lets too many trials go on
SLOWER = 1.2  # an epoch takes longer than its fastest steps, and is validated
LARGER = 1.25  # an epoch of another setting, in those of the own one: the Gaussian process prefers large networks
ALONE = 0.8  # speed of one fit on all cores, in that of all workers together: 0.73 in bfloat16 and 0.88 in float32
TRIAL_SECONDS = 2.0  # beside its epochs: the network is built, and what it has learned is logged
FINAL_SECONDS = 30.0  # beside the epochs of the final fit: it is timed, scored, exported and logged
EPOCHS = "training.epochs"  # the field of an experiment that a plan may change


@dataclass(frozen=True)
class Budget:
    """The epochs for which there is time, at the speed of all workers together."""

    trials: float  # that can be trained until the trials must end
    final: float  # that could be trained from then until the time limit
    overhead: float  # that a worker could train in the time that a trial takes beside its epochs


@dataclass(frozen=True)
class Plan:
    """A plan: the settings that a search begins, and the rounds in which it compares them."""

    settings: int  # that it begins
    epochs: int  # of a whole trial
    factor: int  # of successive halving
    rounds: tuple[int, ...]  # epochs that a trial has at the end of each round
    final: int = 0  # epochs of the final fit for which there is time; 0 if there is none, or no time for one
    borrowed: float = 0.0  # epochs, at the speed of all workers together, that the trials take from the final fit

    @property
    def text(self) -> str:
        """The plan in words."""
        settings = "1 setting" if self.settings == 1 else f"{self.settings} settings"
        winner = f", then about {_epochs(self.final)} for the winner" if self.final else ""
        if len(self.rounds) == 1:
            return f"{settings} of {_epochs(self.rounds[0])}{winner}"
        ends = f"{', '.join(map(str, self.rounds[:-1]))} and {_epochs(self.rounds[-1])}"
        return f"{settings} in {len(self.rounds)} rounds, which end after {ends}{winner}"


def make(config: ExperimentConfig, most: int, budget: Budget, known: int | None = None) -> Plan:
    """Return the plan for the time that is left.

    Trials are whole, with the rungs of the experiment, if as many settings as wanted can be begun (`most`, or ENOUGH if
    that is less). An experiment with a final fit must also have room for all epochs of that, and for networks that are
    larger than its own one; otherwise no more settings than those are begun, as schedules of fewer epochs: of as many
    as leave this room, or of one. If even those would not fit, they take as much of the final fit's time as they need.
    Without a final fit, trials are judged earlier, and fewer of them may pass each rung.

    Args:
        config: the experiment, with its `search`.
        most: settings that may be begun.
        budget: the time that is left.
        known: epochs of a whole trial by the plan of an earlier session, which stay the same.
    """
    assert config.search is not None
    own, lengths = config.search.reduction_factor, _lengths(config, known)
    least, wanted = min(most, ENOUGH), _wanted(config)

    def plan(settings: int, factor: int, rounds: tuple[int, ...], budget: Budget = budget) -> tuple[Plan, bool]:
        """Return a plan, and whether it has room for larger networks and for all epochs of the final fit."""
        left = budget.trials - _cost(settings, rounds, factor, budget.overhead, LARGER)
        final = _final(config, budget.final + max(0.0, left))
        return Plan(settings, rounds[-1], factor, rounds, final), left >= 0 and final == wanted

    for factor, rounds in _rounds(config, earlier=not lengths) if known not in lengths else []:
        settings = _count(rounds, factor, most, budget)
        made, is_roomy = plan(settings, factor, rounds)
        while lengths and settings > least and not is_roomy:
            settings -= 1
            made, is_roomy = plan(settings, factor, rounds)
        if settings >= least and (is_roomy or not lengths):
            return made
    for epochs in lengths:
        settings = _count((epochs,), 1, least, budget)
        made, is_roomy = plan(settings, own, (epochs,))
        if settings == least and is_roomy:
            return made
        if epochs == lengths[-1]:
            lent = _lent(epochs, least, budget)
            made, _ = plan(_count((epochs,), 1, least, lent), own, (epochs,), lent)
            return replace(made, borrowed=lent.trials - budget.trials)
    rounds = (config.training.epochs,) if config.search.pruner == "none" else (1,)
    settings, factor = _count(rounds, own, most, budget), max(own, *FACTORS)
    return replace(plan(settings, factor, rounds)[0], epochs=config.training.epochs)


def rungs(first: int, factor: int, epochs: int) -> tuple[int, ...]:
    """Return the epochs at which successive halving judges trials of this length, and at last the length itself."""
    found = []
    while first < epochs:
        found.append(first)
        first *= factor
    return (*found, epochs)


def _lengths(config: ExperimentConfig, known: int | None) -> Sequence[int]:
    """Return the epochs that a shortened trial may have, the longest first."""
    whole, search = config.training.epochs, config.search
    if known is not None:
        return [known] if known < whole else []
    return range(whole - 1, 0, -1) if config.final and search and EPOCHS not in search.space else []


def _rounds(config: ExperimentConfig, earlier: bool) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the factor and the rounds of the experiment; with `earlier`, also those that judge whole trials earlier."""
    search, epochs = config.search, config.training.epochs
    assert search is not None
    if search.pruner == "none":
        yield search.reduction_factor, (epochs,)
        return
    own = search.reduction_factor
    for first in range(search.min_epochs, 0 if earlier else search.min_epochs - 1, -1):
        yield own, rungs(first, own, epochs)
    for factor in FACTORS if earlier else ():
        if factor > own:
            yield factor, rungs(1, factor, epochs)


def _wanted(config: ExperimentConfig) -> int:
    """Return the epochs of the final fit if the time suffices, or 0 if there is none."""
    return 0 if config.final is None else int(config.final.get(EPOCHS, config.training.epochs))


def _final(config: ExperimentConfig, affordable: float) -> int:
    """Return the epochs of the final fit in the time in which all workers together could train this many."""
    return int(min(_wanted(config), max(0.0, affordable) * ALONE / LARGER))


def _lent(epochs: int, settings: int, budget: Budget) -> Budget:
    """Return the budget in which the final fit lends time to this many trials, if they would not fit without it."""
    needed = _cost(settings, (epochs,), 1, budget.overhead, LARGER) - budget.trials
    borrowed = max(0.0, min(budget.final, needed))
    return replace(budget, trials=budget.trials + borrowed, final=budget.final - borrowed)


def _count(rounds: tuple[int, ...], factor: int, most: int, budget: Budget) -> int:
    """Return how many settings can go through these rounds, at least one."""
    low, high = 1, most
    while low < high:
        middle = (low + high + 1) // 2
        fits = _cost(middle, rounds, factor, budget.overhead) <= budget.trials
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _cost(settings: int, rounds: tuple[int, ...], factor: int, overhead: float, larger: float = 1.0) -> float:
    """Return the epochs that these settings take: the own one, which is trained whole, and others that are larger."""
    total, done, count = settings * overhead + rounds[-1] - larger * rounds[0], 0, settings
    for end in rounds:
        total += larger * count * (end - done)
        done, count = end, max(1, count // factor)
    return total


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"
