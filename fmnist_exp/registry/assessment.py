"""What the evaluation of a version found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.evaluation.metrics import Evaluation

if TYPE_CHECKING:
    from fmnist_exp.registry.lineage import Lineage


@dataclass(frozen=True)
class Level:
    """A model's answers for one corrupted copy. The scaled error is None without a temperature."""

    accuracy: float
    confidence: float
    ece: float
    scaled_ece: float | None


@dataclass(frozen=True)
class Temperature:
    """What was fitted on validation, and the calibration error there and on the test set, before and after."""

    value: float
    validation: tuple[float, float]
    test: tuple[float, float]


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
        levels = [level for row in self.corrupted.values() for level in row]
        scaled = [level.scaled_ece for level in levels if level.scaled_ece is not None]
        return Level(
            accuracy=float(np.mean([level.accuracy for level in levels])),
            confidence=float(np.mean([level.confidence for level in levels])),
            ece=float(np.mean([level.ece for level in levels])),
            scaled_ece=float(np.mean(scaled)) if scaled else None,
        )
