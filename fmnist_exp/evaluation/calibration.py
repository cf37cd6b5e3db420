"""Calibration: how far a model's confidence can be trusted, and temperature scaling, which improves it.

Equations and sections are those of Guo et al. 2017, "On Calibration of Modern Neural Networks" (arXiv:1706.04599).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Probabilities = NDArray[np.floating]  # (N, 10)
Labels = NDArray[np.integer]  # (N,)

BINS = 15  # of equal width between confidence 0 and 1
TEMPERATURES = 0.05, 20.0  # bounds of the search
SMALLEST = 1e-12  # float32 rounds the small probabilities of a confident model to 0, which has no logarithm


@dataclass(frozen=True)
class Reliability:
    """Mean confidence against accuracy in bins of confidence; each array is (15,), empty bins are NaN."""

    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def _binned(probabilities: Probabilities, labels: Labels) -> tuple[Labels, Probabilities, NDArray[np.bool_]]:
    """Return the bin (N,), the confidence (N,) and the correctness (N,) of each prediction."""
    confidence = probabilities.max(axis=1)
    bins = np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)
    return bins, confidence, probabilities.argmax(axis=1) == labels


def reliability(probabilities: Probabilities, labels: Labels) -> Reliability:
    """Sort the predictions into the bins of the expected calibration error."""
    bins, confidence, correct = _binned(probabilities, labels)
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        means = (np.bincount(bins, weights=values, minlength=BINS) / count for values in (confidence, correct))
        return Reliability(count, *means)


def expected_calibration_error(probabilities: Probabilities, labels: Labels) -> float:
    """Return the mean distance between confidence and accuracy over the bins, weighted by their sizes (eq. 3)."""
    bins, confidence, correct = _binned(probabilities, labels)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=BINS)  # size × (accuracy - confidence)
    return float(np.abs(gaps).sum() / len(labels))


def fit_temperature(probabilities: Probabilities, labels: Labels) -> float:
    """Return the temperature with the least cross-entropy (section 4.2). Fit it on validation images."""
    rows = np.arange(len(labels))

    def loss(logarithm: float) -> float:
        scaled = scale(probabilities, float(np.exp(logarithm)))
        return float(-np.log(np.maximum(scaled[rows, labels], SMALLEST)).mean())

    low, high = np.log(TEMPERATURES)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def scale(probabilities: Probabilities, temperature: float) -> NDArray[np.float64]:
    """Return the probabilities (N, 10) at another temperature, with the same predicted classes.

    A temperature above 1 makes a model less confident, and one below 1 makes it more confident. The logits of a network
    are the logarithms of its probabilities, up to a constant that the softmax removes.
    """
    logits = np.log(np.maximum(probabilities.astype(np.float64), SMALLEST)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scaled: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return scaled
