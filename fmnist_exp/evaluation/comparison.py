"""The comparison of two models on the same images, and a test of whether the difference is more than chance."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from fmnist_exp.data.dataset import Split
from fmnist_exp.data.formats import CLASS_NAMES
from fmnist_exp.evaluation.calibration import Labels


@dataclass(frozen=True, eq=False)
class Comparison:
    """The predictions of a challenger and a champion for the N images of one split."""

    split: Split
    indices: NDArray[np.intp]  # (N,) of the images in the challenger's own validation set
    challenger: Labels  # (N,) predicted
    champion: Labels  # (N,) predicted

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
        """The probability that a challenger no better than the champion wins at least this many images by chance.

        This is the exact McNemar test on the images that exactly one model predicts correctly. It is one-sided, because
        the challenger must be better, not just different.
        """
        wins, losses = int(self.won.sum()), int(self.lost.sum())
        return float(binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue) if wins + losses else 1.0

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
            table.writerow(("validation_image", "true", "challenger", "champion", "won_by"))
            for i in np.flatnonzero(self.won | self.lost):
                names = (CLASS_NAMES[labels[i]] for labels in (self.split.labels, self.challenger, self.champion))
                table.writerow((self.indices[i], *names, "challenger" if self.won[i] else "champion"))


def seen_by_neither(held_out: Split, *trained_on: Split) -> NDArray[np.intp]:
    """Return the indices of the images in `held_out` that occur in no training set.

    Images are compared by their pixels, not by their indices. The result is therefore correct for models whose data was
    split with different seeds or read from different files, and for images that occur twice.
    """
    seen = {image.tobytes() for split in trained_on for image in split.images}
    return np.array([i for i, image in enumerate(held_out.images) if image.tobytes() not in seen], np.intp)
