"""Tests of the comparison of bfloat16 with float32: the two one-sided tests, and what their report says."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.training import precision


def rejections(mean: float, deviation: float, repetitions: int = 2000) -> float:
    """The share of repetitions in which equivalence is shown."""
    random = np.random.default_rng(0)
    drawn = random.normal(mean, deviation, (repetitions, len(precision.SEEDS)))
    return float(np.mean([precision.test(list(differences)).shown for differences in drawn]))


def test_a_difference_as_large_as_the_margin_passes_in_one_case_of_twenty():
    """F6: noise must not help, as it did when the difference was compared with one standard error."""
    assert rejections(precision.MARGIN, 0.05) == pytest.approx(precision.LEVEL, abs=0.015)
    assert rejections(precision.MARGIN, 0.5) < precision.LEVEL
    assert rejections(0.0, 0.05) > 0.99


def test_both_tests_reject_when_the_interval_lies_within_the_margin():
    for mean in (-0.3, -0.1, 0.0, 0.05, 0.15):
        result = precision.test([mean + 0.1 * step for step in (-1, 0, 1, 1, -1, 0, 1, -1, 0, 0)])
        low, high = result.interval
        assert result.shown == (low > -precision.MARGIN and high < precision.MARGIN)
        assert low < mean < high


def test_the_p_values_are_those_of_the_textbook():
    differences = [0.1, -0.05, 0.02, 0.2, -0.1, 0.0, 0.12, 0.03, -0.02, 0.07]
    error = np.std(differences, ddof=1) / 10**0.5
    expected = [
        stats.t.sf((np.mean(differences) + 0.2) / error, 9),
        stats.t.cdf((np.mean(differences) - 0.2) / error, 9),
    ]
    assert precision.test(differences).p_values == pytest.approx(expected)


def test_the_report_has_no_verdict_before_all_pairs_exist():
    full = {seed: 93.0 + seed / 10 for seed in precision.SEEDS}
    found = {"bfloat16": full, "float32": {seed: value + 0.01 * (seed % 3) for seed, value in full.items()}}
    assert "Equivalent within the margin of 0.2 points" in precision.report(found)
    assert "| 2 | 93.20 | 93.22 | -0.02 |" in precision.report(found)
    del found["float32"][4]
    text = precision.report(found)
    assert "Missing: seed 4 in float32." in text
    assert "n = 9 pairs" in text
    assert "Equivalent" not in text
    assert "Missing: seed 0 in bfloat16, seed 0 in float32" in precision.report({"bfloat16": {}, "float32": {}})


def test_a_difference_beyond_the_margin_is_named():
    found = {"bfloat16": {seed: 93.0 for seed in precision.SEEDS}}
    found["float32"] = {seed: 93.5 + seed / 100 for seed in precision.SEEDS}
    assert "Equivalence is not shown: they differ" in precision.report(found)
