"""F2: the level of the gate is its level: simulations on drawn answers, decided by the package's own functions."""

import numpy as np
import pytest

from benchmarks import gate
from fmnist_exp.evaluation.comparison import level_of


@pytest.mark.parametrize("trials", gate.TRIALS)
def test_f2_the_best_of_equal_trials_is_promoted_in_five_per_cent_of_the_challenges_at_most(trials):
    """The bound allows for the error of the simulation: a gate of exactly 5 % exceeds it once in a thousand tests."""
    assert gate.false_promotions(1, trials) <= gate.allowed()


@pytest.mark.parametrize("champion_trials", [1, 12])
@pytest.mark.parametrize("trials", gate.TRIALS)
def test_f2_twenty_challenges_in_a_row_promote_in_five_per_cent_of_the_cases_at_most(trials, champion_trials):
    promoted = gate.false_promotions(2, trials, challenges=20, champion_trials=champion_trials)
    assert promoted <= gate.allowed()


@pytest.mark.parametrize(("trials", "challenges"), [(5, 1), (12, 1), (50, 1), (1, 20)])
def test_f2_the_rule_before_fails_these_tests(trials, challenges):
    """It judged on the images that had chosen the challenger, each time at the whole level."""
    assert gate.false_promotions(3, trials, challenges=challenges, old_rule=True) > 1.5 * gate.allowed()


def test_f2_the_bound_is_near_the_level():
    assert gate.REPETITIONS == 2000
    assert 0.05 < gate.allowed() / gate.REPETITIONS < 0.07


def test_f2_the_levels_fall_and_are_spent_once():
    levels = [level_of(challenge, 0.05) for challenge in range(1, 10_001)]
    assert levels == sorted(levels, reverse=True)
    assert 0.049 < sum(levels) < 0.05
    assert level_of(1, 0.1) == pytest.approx(2 * levels[0])


@pytest.mark.parametrize(("lead", "challenge"), [(0.01, 1), (0.005, 5)])
def test_f2_the_computed_power_is_the_share_of_simulated_passes(lead, challenge):
    random = np.random.default_rng(4)
    differ = random.binomial(6000, gate.DISCORDANCE, 4000)
    won = random.binomial(differ, (gate.DISCORDANCE + lead) / (2 * gate.DISCORDANCE))
    level = level_of(challenge, gate.LEVEL)
    passed = gate.p_values(won, differ - won) < level
    assert gate.power(6000, lead, level) == pytest.approx(passed.mean(), abs=0.03)
