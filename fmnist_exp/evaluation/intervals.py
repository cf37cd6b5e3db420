"""Confidence intervals of accuracies, and their one form in every text that people read: 93.05% (92.53 to 93.53)."""

from collections.abc import Iterable, Sequence
from math import sqrt
from statistics import NormalDist

LEVEL = 0.95  # of every interval that is shown
EXPLANATION = "in parentheses the 95% interval"  # for texts that show the first one


def wilson(correct: int, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the bounds of Wilson's score interval for an accuracy measured on `count` images.

    The interval is that of Wilson 1927, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22 (158), equation 2 solved for the probability. It stays between 0
    and 1, and it covers the true accuracy about as often as it claims to, also near both ends and for few images. Its
    few lines spare a command the second that `scipy.stats` takes to import.

    Args:
        correct: the number of images that are classified correctly.
        count: the number of images, at least 1.
        level: the confidence level, between 0 and 1.

    Returns:
        The lower and the upper bound, as fractions.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, shrunk = correct / count, 1 + z**2 / count
    middle = (share + z**2 / (2 * count)) / shrunk
    half = z * sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / shrunk
    return max(0.0, middle - half), min(1.0, middle + half)


def bounds(accuracy: float, count: int) -> tuple[float, float]:
    """Return the bounds of the 95% interval of an accuracy that was measured on `count` images.

    Use it also for a mean over several copies of the same images, with the number of the images: the interval is then
    at least as wide as it must be, because such a mean varies less from image to image than a single answer.
    """
    return wilson(round(accuracy * count), count)


def paired(won: int, lost: int, count: int, level: float = LEVEL) -> tuple[float, float, float]:
    """Return the difference between two accuracies that were measured on the same images, and its interval.

    The interval is Wald's for paired proportions with half an image added to each of the four cells, of Agresti and Min
    2005, "Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine 24 (5).

    Args:
        won: the number of images that only the first model classifies correctly.
        lost: the number of images that only the second model classifies correctly.
        count: the number of images, at least 1.
        level: the confidence level, between 0 and 1.

    Returns:
        The difference, first minus second, and the bounds of its interval, as fractions.
    """
    z, total = NormalDist().inv_cdf((1 + level) / 2), count + 2
    middle = (won - lost) / total
    half = z * sqrt((won + lost + 1) - (won - lost) ** 2 / total) / total
    return (won - lost) / count, middle - half, middle + half


def lead(accuracies: Sequence[float], count: int) -> str:
    """Return a sentence on how many trials may be as good as the one with the highest accuracy; empty for one trial.

    Args:
        accuracies: those of all trials, in any order.
        count: the number of images that each was measured on; 0 if it is unknown, for which there is no sentence.
    """
    if len(accuracies) < 2 or not count:
        return ""
    low, _ = bounds(max(accuracies), count)
    level = sum(accuracy >= low for accuracy in accuracies) - 1  # without the highest one
    interval = "the 95% interval of the highest accuracy"
    if not level:
        return f"No other trial lies within {interval}."
    are, them = ("trial lies", "it") if level == 1 else ("trials lie", "them")
    return f"{level} other {are} within {interval}, so the search does not show a difference to {them}."


def largest_half(measured: Iterable[tuple[float, int]]) -> float:
    """Return half the width of the widest 95% interval of accuracies, each with its number of images."""
    widths = (high - low for low, high in (bounds(accuracy, count) for accuracy, count in measured))
    return max(widths, default=0.0) / 2


def text(accuracy: float, count: int) -> str:
    """Return an accuracy with its 95% interval, such as `93.05% (92.53 to 93.53)`.

    If the number of images is unknown, which is a `count` of 0, the accuracy stands alone.
    """
    if not count:
        return f"{accuracy:.2%}"
    low, high = bounds(accuracy, count)
    return f"{accuracy:.2%} ({low * 100:.2f} to {high * 100:.2f})"
