"""Successive halving with promotion: which trials pause, which go on, and which are given up; nothing is trained."""

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from support import standin

from fmnist_exp.tuning.halving import KEPT, Halving
from fmnist_exp.tuning.record import RunningTrial
from fmnist_exp.tuning.workers.messages import Verdict

OWN = {"x": 1000.0}


class Bench:
    """A rule, and trials of up to 9 epochs that reach its rungs."""

    def __init__(self, n_trials: int = 1000, factor: int = 3, first: int = 1) -> None:
        config = standin.configure(
            n_trials, training__epochs=9, search__reduction_factor=factor, search__min_epochs=first
        )
        self.config, self.rule = config, Halving(config.search, OWN)
        self.study = optuna.create_study()

    def trial(self, *curve: float, x: float = 0.0) -> tuple[RunningTrial, Verdict]:
        trial = self.study.ask()
        trial.suggest_float("x", x, x)
        entry = RunningTrial(trial, self.config)
        for epoch, accuracy in enumerate(curve, 1):
            self.rule.observe(entry, epoch, accuracy)
        verdict = self.rule.judge(entry)
        if verdict is Verdict.PAUSE:
            self.rule.pause(entry)
        return entry, verdict

    def verdicts(self, *accuracies: float) -> str:
        return "".join(self.trial(accuracy)[1].value[0] for accuracy in accuracies)


def test_nobody_goes_on_before_there_is_somebody_to_be_better_than():
    bench = Bench()
    assert bench.verdicts(0.5, 0.4) == "pp"
    assert bench.rule.promoted() is None


def test_the_best_third_goes_on_at_once():
    assert Bench().verdicts(0.5, 0.4, 0.6) == "ppc"


def test_a_trial_is_resumed_when_enough_others_were_worse():
    bench = Bench()
    best, _ = bench.trial(0.6)
    assert bench.verdicts(0.4, 0.5) == "pp"
    assert bench.rule.promoted() is best
    assert bench.rule.promoted() is None  # it has taken the only place


def test_the_highest_rung_comes_first_and_there_the_best_trial():
    bench = Bench()
    low, *_ = [bench.trial(accuracy)[0] for accuracy in (0.9, 0.1, 0.1)]
    middle, high, *_ = [bench.trial(0.2, 0.2, accuracy)[0] for accuracy in (0.3, 0.4, 0.2, 0.2, 0.2, 0.2)]
    assert [bench.rule.promoted() for _ in range(4)] == [high, middle, low, None]


def test_the_highest_accuracy_so_far_counts():
    bench = Bench()
    early, _ = bench.trial(0.2, 0.9, 0.1)
    bench.trial(0.1, 0.1, 0.5)
    bench.trial(0.1, 0.1, 0.5)
    assert bench.rule.promoted() is early


def test_equal_trials_deserve_the_same():
    assert Bench().verdicts(0.5, 0.5, 0.5) == "ppc"


@pytest.mark.parametrize(("first", "factor", "rungs"), [(1, 3, [1, 3]), (2, 2, [2, 4, 8]), (4, 3, [4])])
def test_the_rungs(first, factor, rungs):
    bench = Bench(first=first, factor=factor)
    trial = bench.study.ask()
    entry = RunningTrial(trial, bench.config)
    found = []
    for epoch in range(1, 9):
        bench.rule.observe(entry, epoch, 0.5)
        found += [entry.rung] if entry.rung not in [0, *found] else []
    assert found == rungs


def test_a_trial_with_too_many_better_ones_for_the_whole_search_is_stopped():
    assert Bench(n_trials=6, factor=2).verdicts(0.9, 0.8, 0.7, 0.6, 0.95) == "pppsc"


def test_few_trials_are_kept_in_a_long_search():
    bench = Bench(n_trials=100_000)
    for count in range(300):
        bench.trial(1 - count / 1000)  # each one is worse than all before it
        while bench.rule.promoted() or bench.rule.hopeless():
            pass
        assert len(bench.rule.paused) <= KEPT + 1


def test_the_own_setting_is_never_given_up():
    bench = Bench(n_trials=4, factor=2)
    own, verdict = bench.trial(0.1, x=OWN["x"])
    assert verdict is Verdict.PAUSE
    bench.verdicts(0.9, 0.9, 0.9, 0.9)
    while bench.rule.promoted() or bench.rule.hopeless():
        pass
    assert bench.rule.own() is own


def test_at_the_end_the_best_of_a_rung_goes_on_and_the_others_end():
    bench = Bench()
    worse, better = bench.trial(0.5)[0], bench.trial(0.6)[0]
    bench.rule.least = 1
    assert bench.rule.promoted() is better
    assert bench.rule.promoted() is None
    assert bench.rule.hopeless() is None
    assert bench.rule.hopeless(everyone=True) is worse
    assert not bench.rule.paused


def test_trials_of_earlier_sessions_count_unless_they_failed():
    bench = Bench()
    for state in (TrialState.PRUNED, TrialState.COMPLETE, TrialState.FAIL):
        value = 0.9 if state == TrialState.COMPLETE else None
        bench.rule.count(create_trial(state=state, value=value, intermediate_values={1: 0.1, 2: 0.3}))
    assert bench.verdicts(0.2) == "c"  # the best of three


def test_without_the_pruner_nobody_is_judged():
    config = standin.configure(search__pruner="none")
    rule, entry = Halving(config.search, OWN), RunningTrial(optuna.create_study().ask(), config)
    rule.observe(entry, 1, 0.5)
    assert entry.rung == 0
