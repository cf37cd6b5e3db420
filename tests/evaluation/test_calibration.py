"""Calibration errors equal sums computed by hand, and a fitted temperature undoes the one that was applied."""

import numpy as np
import pytest

from fmnist_exp.evaluation import calibration
from fmnist_exp.evaluation.calibration import expected_calibration_error


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def calibrated():
    """Return perfectly calibrated probabilities (20000, 10), with labels that are drawn from them."""
    random = np.random.default_rng(0)
    probabilities = softmax(2 * random.standard_normal((20_000, 10)))
    labels = (probabilities.cumsum(axis=1) > random.random((20_000, 1))).argmax(axis=1)
    return probabilities, labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_fit_temperature_finds_the_temperature_that_was_applied(temperature, calibrated):
    probabilities, labels = calibrated
    scaled = calibration.scale(probabilities, 1 / temperature)
    assert calibration.fit_temperature(scaled, labels) == pytest.approx(temperature, rel=0.05)


def test_scaling_calibrates_an_overconfident_model(calibrated):
    probabilities, labels = calibrated
    overconfident = calibration.scale(probabilities, 0.4)
    calibrated_again = calibration.scale(overconfident, calibration.fit_temperature(overconfident, labels))
    assert expected_calibration_error(overconfident, labels) > 0.1
    assert expected_calibration_error(calibrated_again, labels) < 0.02


def test_scaling_keeps_predictions_and_sums(calibrated):
    probabilities, _ = calibrated
    for temperature in (0.1, 1.0, 10.0):
        scaled = calibration.scale(probabilities, temperature)
        assert np.array_equal(scaled.argmax(axis=1), probabilities.argmax(axis=1))
        assert scaled.sum(axis=1) == pytest.approx(1)
    assert calibration.scale(probabilities, 1.0) == pytest.approx(probabilities)


def test_fit_temperature_accepts_probabilities_of_zero():
    certain = np.eye(10, dtype=np.float32)
    assert np.isfinite(calibration.fit_temperature(certain, np.arange(10)))
    assert np.isfinite(calibration.fit_temperature(certain, np.zeros(10, int)))


def test_reliability_sums_to_the_calibration_error(calibrated):
    probabilities, labels = calibrated
    bins = calibration.reliability(probabilities, labels)
    gaps = np.nan_to_num(np.abs(bins.accuracy - bins.confidence)) * bins.count
    assert bins.count.sum() == len(labels)
    assert gaps.sum() / len(labels) == pytest.approx(expected_calibration_error(probabilities, labels))


def confident(*confidences: float) -> np.ndarray:
    """Return a row for each confidence: class 0 has that probability, the other classes share the rest."""
    rows = np.array([[c, *[(1 - c) / 9] * 9] for c in confidences])
    assert (rows.argmax(axis=1) == 0).all()
    return rows


@pytest.mark.parametrize(
    ("confidences", "labels", "expected"),
    [
        ((1.0,), (0,), 0.0),
        ((1.0,), (1,), 1.0),
        ((0.7,), (0,), 0.3),
        # one bin from 0.733 to 0.8, with accuracy 1/2 and confidence 0.76
        ((0.75, 0.77), (0, 1), 0.26),
        # two bins of one image each: |1 - 0.5| and |0 - 0.9|
        ((0.5, 0.9), (0, 1), (0.5 + 0.9) / 2),
        # two bins of 2 and 1 images
        ((0.61, 0.65, 0.95), (0, 0, 0), (2 * (1 - 0.63) + (1 - 0.95)) / 3),
    ],
)
def test_calibration_error_equals_the_sum_by_hand(confidences, labels, expected):
    error = expected_calibration_error(confident(*confidences), np.array(labels))
    assert error == pytest.approx(expected, abs=1e-9)


def test_naive_guess_has_no_calibration_error():
    labels = np.arange(1000) % 10
    error = expected_calibration_error(np.full((1000, 10), 0.1), labels)
    assert error == pytest.approx(0.0, abs=1e-12)
