"""The account of a search: how many epochs it has spent, and the best accuracy that it had seen by then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.lcbench.surrogate import EPOCHS, FOLDER

Array = NDArray[np.float64]
Curve = Callable[[Mapping[str, float]], Array]  # setting → validation accuracies, one per epoch


class Spent(Exception):  # noqa: N818 — it is no error
    """The budget is spent."""


@dataclass
class Ledger:
    """The epochs that a search has spent, and each new best accuracy with the number of epochs after it."""

    budget: int  # epochs
    epochs: int = 0
    trials: int = 0
    best: list[tuple[int, float]] = field(default_factory=list)  # (epochs, accuracy)

    def record(self, accuracy: float) -> None:
        """Record an epoch. Raises Spent if the budget was spent before it."""
        if self.epochs >= self.budget:
            raise Spent
        self.epochs += 1
        if not self.best or accuracy > self.best[-1][1]:
            self.best.append((self.epochs, accuracy))


@dataclass
class Trial:
    """A trial of a peer; its training can pause and resume."""

    curve: Array
    ledger: Ledger
    epochs: int = 0  # done

    def train(self, epochs: int = EPOCHS) -> float:
        """Train until this many epochs are done, and return the accuracy of the last one. Raises Spent."""
        for _ in range(self.epochs, epochs):
            self.ledger.record(float(self.curve[self.epochs]))
            self.epochs += 1
        return float(self.curve[epochs - 1])


@dataclass(frozen=True)
class Problem:
    """The task of a peer: learning curves to search, the account of its epochs, its first setting, and a seed."""

    curve: Curve
    ledger: Ledger
    first: Mapping[str, float]
    seed: int
    task: str = ""  # its number and the surrogate's folder, for a search in another process
    folder: Path = FOLDER

    def start(self, setting: Mapping[str, float]) -> Trial:
        """Start a trial."""
        self.ledger.trials += 1
        return Trial(self.curve(setting), self.ledger)
