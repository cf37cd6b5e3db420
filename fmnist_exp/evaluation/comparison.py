"""Two models on the same images: which images each wins, and whether that is more than chance."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.data.dataset import Split
from fmnist_exp.data.formats import CLASS_NAMES

Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The answers of challenger and champion for the images of one split."""

    split: Split
    places: NDArray[np.intp]  # (N,) of the images in the challenger's own validation set
    challenger: Labels  # (N,) predicted
    champion: Labels  # (N,) predicted

    @property
    def won(self) -> NDArray[np.bool_]:
        """Images that only the challenger has right."""
        won: NDArray[np.bool_] = (self.challenger == self.split.labels) & (self.champion != self.split.labels)
        return won

    @property
    def lost(self) -> NDArray[np.bool_]:
        """Images that only the champion has right."""
        lost: NDArray[np.bool_] = (self.champion == self.split.labels) & (self.challenger != self.split.labels)
        return lost

    @property
    def p_value(self) -> float:
        """How often chance alone would let an equal challenger win so many of the images that exactly one has right.

        The exact McNemar test, one-sided: being different is not enough, the challenger must be better.
        """
        from scipy.stats import binomtest

        wins, losses = int(self.won.sum()), int(self.lost.sum())
        return float(binomtest(wins, wins + losses, 0.5, alternative="greater").pvalue) if wins + losses else 1.0

    def accuracies(self) -> tuple[float, float]:
        """Of challenger and champion."""
        labels = self.split.labels
        return float(np.mean(self.challenger == labels)), float(np.mean(self.champion == labels))

    def per_class(self) -> dict[str, dict[str, float]]:
        """Class name → images, won, lost, both accuracies."""
        return {name: self._of(self.split.labels == label) for label, name in enumerate(CLASS_NAMES)}

    def _of(self, chosen: NDArray[np.bool_]) -> dict[str, float]:
        labels, count = self.split.labels[chosen], max(1, int(chosen.sum()))
        return {
            "images": int(chosen.sum()),
            "won": int(self.won[chosen].sum()),
            "lost": int(self.lost[chosen].sum()),
            "challenger_accuracy": int((self.challenger[chosen] == labels).sum()) / count,
            "champion_accuracy": int((self.champion[chosen] == labels).sum()) / count,
        }

    def numbers(self) -> dict[str, Any]:
        """Everything but the single images, ready for JSON."""
        challenger, champion = self.accuracies()
        return {
            "images": len(self.split.labels),
            "challenger_accuracy": challenger,
            "champion_accuracy": champion,
            "won": int(self.won.sum()),
            "lost": int(self.lost.sum()),
            "p_value": self.p_value,
            "classes": self.per_class(),
        }

    def write_images(self, file: Path) -> None:
        """A CSV line for each image that exactly one of the two has right."""
        with file.open("w", encoding="utf-8", newline="") as stream:
            table = csv.writer(stream)
            table.writerow(("validation_image", "true", "challenger", "champion", "won_by"))
            for i in np.flatnonzero(self.won | self.lost):
                names = (CLASS_NAMES[x[i]] for x in (self.split.labels, self.challenger, self.champion))
                table.writerow((self.places[i], *names, "challenger" if self.won[i] else "champion"))


def seen_by_neither(held_out: Split, *trained_on: Split) -> NDArray[np.intp]:
    """Places of the images in `held_out` that occur in no training set.

    Pixels are compared, not places: so it holds for models split by different seeds or read from different files, and
    an image that occurs twice does not count as unseen.
    """
    seen = {image.tobytes() for split in trained_on for image in split.images}
    return np.array([i for i, image in enumerate(held_out.images) if image.tobytes() not in seen], np.intp)
