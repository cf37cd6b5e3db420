"""Scores of a model on corrupted copies of images, and what scaling by a temperature does to its calibration."""

from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass

import numpy as np

from fmnist_exp.evaluation import calibration
from fmnist_exp.evaluation.calibration import Labels, Probabilities, expected_calibration_error
from fmnist_exp.evaluation.corruptions import CORRUPTIONS, SEVERITIES, Images, corrupt


@dataclass(frozen=True)
class Level:
    """The scores on one copy of the images, clean or corrupted."""

    accuracy: float
    confidence: float  # mean probability of the predicted class
    ece: float  # expected calibration error
    scaled_ece: float | None  # the same at the fitted temperature; None without one


@dataclass(frozen=True)
class Temperature:
    """A temperature fitted on validation images, and what scaling by it changes."""

    value: float
    validation: tuple[float, float]  # expected calibration errors, before and after
    test: tuple[float, float]


def level(probabilities: Probabilities, labels: Labels, temperature: float | None) -> Level:
    """Score probabilities (N, 10) against labels (N,), and once more at a fitted temperature if there is one."""
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
    """Score corrupted copies of the images (N, 28, 28): for each corruption, return one level per severity.

    `seed` is the random seed of the corruptions. `progress` is called with the name and the severity of each copy,
    before the copy is scored.
    """

    def score(name: str, severity: int) -> Level:
        progress(f"{name}, severity {severity}")
        return level(predict(corrupt(name, images, severity, seed)), labels, temperature)

    return {name: tuple(score(name, severity) for severity in SEVERITIES) for name in CORRUPTIONS}


def mean_level(levels: Iterable[Level]) -> Level:
    """Return the mean of each score over levels. Either all levels have a scaled error, or none has."""
    accuracy, confidence, ece, scaled = zip(*map(astuple, levels), strict=True)
    mean_scaled = None if None in scaled else float(np.mean(scaled))
    return Level(float(np.mean(accuracy)), float(np.mean(confidence)), float(np.mean(ece)), mean_scaled)


def fit_temperature(validation: tuple[Probabilities, Labels], test: tuple[Probabilities, Labels]) -> Temperature:
    """Fit a temperature on validation images, unseen by the model, and measure how scaling by it changes the scores."""
    value = calibration.fit_temperature(*validation)

    def errors(probabilities: Probabilities, labels: Labels) -> tuple[float, float]:
        scaled = calibration.scale(probabilities, value)
        return expected_calibration_error(probabilities, labels), expected_calibration_error(scaled, labels)

    return Temperature(value, errors(*validation), errors(*test))
