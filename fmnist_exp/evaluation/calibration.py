"""Whether probabilities mean what they say, and one number that mends most of what does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.evaluation.metrics import CALIBRATION_BINS

Probabilities = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]

TEMPERATURES = 0.05, 20.0  # the lowest and the highest that is tried
SMALLEST = 1e-12  # float32 rounds the probabilities of a very sure model to 0, which has no logarithm


@dataclass(frozen=True)
class Reliability:
    """Confidence against accuracy, in bins of equal width; empty bins are NaN."""

    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def reliability(probabilities: Probabilities, labels: Labels) -> Reliability:
    """Sort answers into the bins of the expected calibration error."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    bins = np.clip((confidence * CALIBRATION_BINS).astype(int), 0, CALIBRATION_BINS - 1)
    count = np.bincount(bins, minlength=CALIBRATION_BINS)
    with np.errstate(invalid="ignore"):
        means = [
            np.bincount(bins, weights=values, minlength=CALIBRATION_BINS) / count for values in (confidence, right)
        ]
    return Reliability(count, *means)


def fit_temperature(probabilities: Probabilities, labels: Labels) -> float:
    """The temperature with the least cross-entropy (Guo et al. 2017, section 4.2). Fit it on validation images."""
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))

    def loss(logarithm: float) -> float:
        scaled = scale(probabilities, float(np.exp(logarithm)))
        return float(-np.log(np.maximum(scaled[rows, labels], SMALLEST)).mean())

    low, high = np.log(TEMPERATURES)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def scale(probabilities: Probabilities, temperature: float) -> NDArray[np.float64]:
    """Probabilities (N, 10) at another temperature: above 1 less sure, below 1 surer. The answers stay the same.

    The network's logits are the logarithms of its probabilities, up to a constant that the softmax takes out again.
    """
    logits = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return scaled
