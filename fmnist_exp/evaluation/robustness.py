"""Scores of a model on corrupted copies of images, and what scaling by a temperature does to its calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.evaluation import calibration
from fmnist_exp.evaluation.calibration import Labels, Probabilities, expected_calibration_error
from fmnist_exp.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Level:
    """The scores on one copy of the images, clean or corrupted."""

    accuracy: float
    confidence: float  # mean probability of the predicted class
    ece: float  # expected calibration error
    scaled_ece: float | None  # the same at the fitted temperature; None without one


@dataclass(frozen=True)
class Temperature:
    """A temperature fitted on validation images, with the calibration errors before and after scaling by it."""

    value: float
    validation: tuple[float, float]
    test: tuple[float, float]


def level(probabilities: Probabilities, labels: Labels, temperature: float | None) -> Level:
    """Score probabilities (N, 10) against labels (N,)."""
    scaled = None
    if temperature is not None:
        scaled = expected_calibration_error(calibration.scale(probabilities, temperature), labels)
    return Level(
        accuracy=float(np.mean(probabilities.argmax(axis=1) == labels)),
        confidence=float(probabilities.max(axis=1).mean()),
        ece=expected_calibration_error(probabilities, labels),
        scaled_ece=scaled,
    )


def score_corrupted(
    predict: Callable[[Images], Probabilities],
    images: Images,
    labels: Labels,
    seed: int,
    temperature: float | None,
    progress: Callable[[str], None],
) -> dict[str, tuple[Level, ...]]:
    """Score every corruption of uint8 images (N, 28, 28) at every severity.

    Args:
        predict: returns probabilities (N, 10) for images.
        images: the clean images.
        labels: their classes (N,).
        seed: random seed of the corruptions.
        temperature: fitted temperature for `Level.scaled_ece`, or None.
        progress: is called with the name and the severity of each copy before it is scored.

    Returns:
        The name of each corruption with one level per severity.
    """
    scores = {}
    for name in CORRUPTIONS:
        levels = []
        for severity in SEVERITIES:
            progress(f"{name}, severity {severity}")
            levels.append(level(predict(corrupt(name, images, severity, seed)), labels, temperature))
        scores[name] = tuple(levels)
    return scores


def mean_level(levels: Iterable[Level]) -> Level:
    """Return the mean of each score over levels, of which either all or none have a scaled error."""
    levels = list(levels)
    scaled = [one.scaled_ece for one in levels if one.scaled_ece is not None]
    return Level(
        accuracy=float(np.mean([one.accuracy for one in levels])),
        confidence=float(np.mean([one.confidence for one in levels])),
        ece=float(np.mean([one.ece for one in levels])),
        scaled_ece=float(np.mean(scaled)) if scaled else None,
    )


def fit_temperature(validation: tuple[Probabilities, Labels], test: tuple[Probabilities, Labels]) -> Temperature:
    """Fit a temperature on the validation split and measure on both splits what scaling by it changes.

    Args:
        validation: probabilities (N, 10) and labels (N,) of images that the model was not trained on.
        test: the same for the test images.
    """
    value = calibration.fit_temperature(*validation)

    def errors(probabilities: Probabilities, labels: Labels) -> tuple[float, float]:
        scaled = calibration.scale(probabilities, value)
        return expected_calibration_error(probabilities, labels), expected_calibration_error(scaled, labels)

    return Temperature(value, errors(*validation), errors(*test))
