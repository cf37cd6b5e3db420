"""The comparison of two models on the same images, and a test of whether the difference is more than chance.

The level of the test is spent over all challenges that one champion meets: `level_of` gives each of them its share.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import zeta
from scipy.stats import binom

from fmnist_exp.data.dataset import Split
from fmnist_exp.data.formats import CLASS_NAMES
from fmnist_exp.evaluation.calibration import Labels

DECAY: Final = 1.6  # of the levels; docs/gate.md compares the power of some sequences


def level_of(challenge: int, level: float) -> float:
    """Return the level at which the gate tests the challenge with this number, counted from 1 for each champion.

    The levels of all challenges sum to `level`, so that the probability that any of them promotes a version that is no
    better than the champion is at most `level`, however many there are (Bonferroni's inequality).
    """
    return float(level * challenge**-DECAY / zeta(DECAY))


def p_values(won: NDArray[Any] | int, lost: NDArray[Any] | int) -> NDArray[np.float64]:
    """Return the p-values of comparisons with these numbers of images that only one of the two models has right.

    This is the exact McNemar test. It is one-sided, because the challenger must be better, not just different.
    """
    wins, losses = np.asarray(won), np.asarray(lost)
    return np.asarray(binom.sf(wins - 1, wins + losses, 0.5), np.float64)


@dataclass(frozen=True, eq=False)
class Comparison:
    """The predictions of a challenger and a champion for the N images of one split."""

    split: Split
    indices: NDArray[np.intp]  # (N,) of the images in the challenger's own gate split
    challenger: Labels  # (N,) predicted
    champion: Labels  # (N,) predicted; or by the logistic regression

    @property
    def won(self) -> NDArray[np.bool_]:
        """A mask (N,) of the images that only the challenger predicts correctly."""
        return np.asarray((self.challenger == self.split.labels) & (self.champion != self.split.labels), np.bool_)

    @property
    def lost(self) -> NDArray[np.bool_]:
        """A mask (N,) of the images that only the champion predicts correctly."""
        return np.asarray((self.champion == self.split.labels) & (self.challenger != self.split.labels), np.bool_)

    @property
    def p_value(self) -> float:
        """The probability that a challenger no better than the champion wins at least this many images by chance."""
        return float(p_values(self.won.sum(), self.lost.sum()))

    def numbers(self) -> dict[str, Any]:
        """Return the counts, the accuracies (overall and by class) and the p-value, ready for JSON."""
        everything = self._counts(np.ones(len(self.split.labels), np.bool_))
        classes = {name: self._counts(self.split.labels == label) for label, name in enumerate(CLASS_NAMES)}
        return {**everything, "p_value": self.p_value, "classes": classes}

    def _counts(self, chosen: NDArray[np.bool_]) -> dict[str, float]:
        labels, count = self.split.labels[chosen], int(chosen.sum())
        return {
            "images": count,
            "challenger_accuracy": int((self.challenger[chosen] == labels).sum()) / max(1, count),
            "champion_accuracy": int((self.champion[chosen] == labels).sum()) / max(1, count),
            "won": int(self.won[chosen].sum()),
            "lost": int(self.lost[chosen].sum()),
        }

    def write_images(self, file: Path) -> None:
        """Write a CSV file with a line for each image that exactly one of the two models predicts correctly."""
        with file.open("w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(("gate_image", "true", "challenger", "champion", "won_by"))
            for i in np.flatnonzero(self.won | self.lost):
                names = (CLASS_NAMES[labels[i]] for labels in (self.split.labels, self.challenger, self.champion))
                table.writerow((self.indices[i], *names, "challenger" if self.won[i] else "champion"))


def seen_by_neither(held_out: Split, *used: Split) -> NDArray[np.intp]:
    """Return the indices of the images in `held_out` that are in none of the splits that the two models used.

    Images are compared by their pixels, not by their indices. The result is therefore correct for models whose data was
    split with different seeds or read from different files, and for images that occur twice.
    """
    seen = {image.tobytes() for split in used for image in split.images}
    return np.array([i for i, image in enumerate(held_out.images) if image.tobytes() not in seen], np.intp)
