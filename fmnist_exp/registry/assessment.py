"""What the evaluation of a version found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.evaluation.metrics import Evaluation
from fmnist_exp.evaluation.robustness import Level, Temperature, mean_level

if TYPE_CHECKING:
    from fmnist_exp.registry.lineage import Lineage


@dataclass(frozen=True, eq=False)
class Assessment:
    """Everything that `evaluate` found out about a version."""

    lineage: Lineage
    seed: int  # of the corruptions
    test: Evaluation
    probabilities: NDArray[np.float32]  # (10000, 10) for the test set
    clean: Level
    corrupted: Mapping[str, tuple[Level, ...]]  # name → one per severity
    temperature: Temperature | None

    @property
    def mean(self) -> Level:
        """Over all corruptions and severities."""
        return mean_level(level for row in self.corrupted.values() for level in row)
