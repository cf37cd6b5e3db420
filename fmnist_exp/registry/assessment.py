"""The measurement of a version: its numbers on the test set and on corrupted copies of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.evaluation import metrics, robustness
from fmnist_exp.evaluation.metrics import Evaluation
from fmnist_exp.evaluation.robustness import Level, Temperature
from fmnist_exp.registry import lineage, versions
from fmnist_exp.registry.lineage import Lineage


@dataclass(frozen=True, eq=False)
class Assessment:
    """Everything that `fmnist-exp evaluate` measures on a version."""

    lineage: Lineage
    seed: int  # of the corruptions
    test: Evaluation
    probabilities: NDArray[np.float32]  # (10000, 10) for the test set
    clean: Level
    corrupted: Mapping[str, tuple[Level, ...]]  # corruption → one level per severity
    temperature: Temperature | None

    @property
    def mean(self) -> Level:
        """The mean over all corruptions and severities."""
        return robustness.mean_level(level for levels in self.corrupted.values() for level in levels)


def assess(
    subject: Lineage, data: FashionMNIST, seed: int, *, temperature: bool, progress: Callable[[str], None]
) -> Assessment:
    """Let a version predict every test image, clean and corrupted.

    Args:
        subject: the version.
        data: its images, split as for its run.
        seed: random seed of the corruptions.
        temperature: fit a temperature on validation images that the model was not trained on.
        progress: is called with the name of each step before it begins.

    Raises:
        WorkError: the model cannot be loaded or fails.
    """
    progress("clean test images")
    predictor = lineage.Predictor(versions.files(subject.version), f"version {subject.number}")
    probabilities, labels = predictor.probabilities(data.test.images), data.test.labels
    fitted = None
    if temperature:
        held_out = subject.held_out.load_predictor().probabilities(data.validation.images)
        fitted = robustness.fit_temperature((held_out, data.validation.labels), (probabilities, labels))
    value = fitted.value if fitted else None
    return Assessment(
        lineage=subject,
        seed=seed,
        test=metrics.evaluate(probabilities, labels, "test"),
        probabilities=probabilities,
        clean=robustness.level(probabilities, labels, value),
        corrupted=robustness.score_corrupted(predictor.probabilities, data.test.images, labels, seed, value, progress),
        temperature=fitted,
    )
