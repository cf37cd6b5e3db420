"""The account of a search: how many epochs it has spent, and the best accuracy that it had seen by then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.lcbench.surrogate import EPOCHS, FOLDER, random_setting

Array = NDArray[np.float64]
Setting = Mapping[str, Any]
Curve = Callable[[Setting], Array]  # setting → validation accuracies, one per epoch


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

    def train(self, epochs: int) -> float:
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
    first: Setting
    seed: int
    task: str = ""  # its number and the surrogate's folder, for a search in another process
    folder: Path = FOLDER
    epochs: int = EPOCHS  # of a full trial
    draw: Callable[[np.random.Generator], Setting] = random_setting
    suggest: Callable[[Any], Setting] | None = None  # the setting of one of Optuna's trials; None: one of LCBench's

    def start(self, setting: Setting) -> Trial:
        """Start a trial."""
        self.ledger.trials += 1
        return Trial(self.curve(setting), self.ledger)
