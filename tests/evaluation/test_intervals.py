"""Wilson's intervals: SciPy's are the same, they cover what they claim, and they are written in one form."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from fmnist_exp.evaluation import intervals


@pytest.mark.parametrize(("correct", "count"), [(0, 1), (1, 1), (0, 50), (50, 50), (7, 9), (9305, 10000)])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_scipy_has_the_same_bounds(correct, count, level):
    found = binomtest(correct, count).proportion_ci(level, method="wilson")
    assert intervals.wilson(correct, count, level) == pytest.approx((found.low, found.high), abs=1e-12)


@pytest.mark.parametrize("accuracy", [0.1, 0.9, 0.94, 0.99])
def test_the_interval_covers_the_accuracy_as_often_as_it_claims(accuracy):
    """The exact probability of covering, summed over every possible number of correct answers."""
    count = 1000
    found = np.array([intervals.wilson(correct, count) for correct in range(count + 1)])
    covers = (found[:, 0] <= accuracy) & (accuracy <= found[:, 1])
    assert binom.pmf(np.arange(count + 1), count, accuracy)[covers].sum() == pytest.approx(0.95, abs=0.015)


def test_an_accuracy_is_written_with_its_interval():
    assert intervals.text(0.9305, 10000) == "93.05% (92.53 to 93.53)"
    assert intervals.text(1.0, 20) == "100.00% (83.89 to 100.00)"


@pytest.mark.parametrize(
    ("accuracies", "count", "words"),
    [
        ([0.9], 6000, ""),
        ([0.9, 0.8], 0, ""),
        ([0.8, 0.9], 6000, "No other trial lies within the 95% interval of the highest accuracy."),
        ([0.895, 0.9, 0.8], 6000, "1 other trial lies within"),
        ([0.9, 0.9, 0.895, 0.88], 6000, "2 other trials lie within"),
    ],
)
def test_a_lead_within_the_interval_is_not_called_better(accuracies, count, words):
    found = intervals.lead(accuracies, count)
    assert found.startswith(words)
    assert "better" not in found
    assert bool(found) == bool(words)


@pytest.mark.parametrize(("first", "second"), [(0.02, 0.02), (0.03, 0.02), (0.005, 0.001)])
def test_the_interval_of_a_difference_covers_it_as_often_as_it_claims(first, second):
    """On 6,000 images: drawn answers, of which these shares are correct in one of the two models only."""
    drawn = np.random.default_rng(0).multinomial(6000, [first, second, 1 - first - second], size=4000)
    covered = [low <= first - second <= high for _, low, high in (intervals.paired(*row[:2], 6000) for row in drawn)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)


def test_the_difference_is_that_of_the_accuracies():
    difference, low, high = intervals.paired(30, 10, 1000)
    assert difference == pytest.approx(0.02)
    assert low < 0.0200 < high
    assert [-bound for bound in intervals.paired(10, 30, 1000)] == pytest.approx([difference, high, low])
    assert intervals.paired(0, 0, 1)[1] < 0 < intervals.paired(0, 0, 1)[2], "one image says nothing"
