"""Calibration errors against sums by hand, and temperatures against the one that was applied."""

import numpy as np
import pytest

from fmnist_exp.evaluation import calibration
from fmnist_exp.evaluation.calibration import expected_calibration_error


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def calibrated():
    """Probabilities that mean what they say: the labels are drawn from them."""
    random = np.random.default_rng(0)
    probabilities = softmax(2 * random.standard_normal((20_000, 10)))
    labels = (probabilities.cumsum(axis=1) > random.random((20_000, 1))).argmax(axis=1)
    return probabilities, labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_spoiled_the_probabilities_is_found(temperature, calibrated):
    probabilities, labels = calibrated
    spoiled = calibration.scale(probabilities, 1 / temperature)
    assert calibration.fit_temperature(spoiled, labels) == pytest.approx(temperature, rel=0.05)


def test_scaling_mends_an_overconfident_model(calibrated):
    probabilities, labels = calibrated
    sure = calibration.scale(probabilities, 0.4)
    mended = calibration.scale(sure, calibration.fit_temperature(sure, labels))
    assert expected_calibration_error(sure, labels) > 0.1
    assert expected_calibration_error(mended, labels) < 0.02


def test_scaling_keeps_answers_and_sums(calibrated):
    probabilities, _ = calibrated
    for temperature in (0.1, 1.0, 10.0):
        scaled = calibration.scale(probabilities, temperature)
        assert np.array_equal(scaled.argmax(axis=1), probabilities.argmax(axis=1))
        assert scaled.sum(axis=1) == pytest.approx(1)
    assert calibration.scale(probabilities, 1.0) == pytest.approx(probabilities)


def test_probabilities_of_zero_are_no_trouble():
    certain = np.eye(10, dtype=np.float32)
    assert np.isfinite(calibration.fit_temperature(certain, np.arange(10)))
    assert np.isfinite(calibration.fit_temperature(certain, np.zeros(10, int)))


def test_reliability_adds_up_to_the_calibration_error(calibrated):
    probabilities, labels = calibrated
    bins = calibration.reliability(probabilities, labels)
    gaps = np.nan_to_num(np.abs(bins.accuracy - bins.confidence)) * bins.count
    assert bins.count.sum() == len(labels)
    assert gaps.sum() / len(labels) == pytest.approx(expected_calibration_error(probabilities, labels))


def confident(*confidences: float) -> np.ndarray:
    """A row per confidence: that much for class 0, the rest spread over the others."""
    rows = np.array([[c, *[(1 - c) / 9] * 9] for c in confidences])
    assert (rows.argmax(axis=1) == 0).all()
    return rows


@pytest.mark.parametrize(
    ("confidences", "labels", "expected"),
    [
        ((1.0,), (0,), 0.0),
        ((1.0,), (1,), 1.0),
        ((0.7,), (0,), 0.3),
        # one bin (0.733…, 0.8]: accuracy 1/2, confidence 0.76
        ((0.75, 0.77), (0, 1), 0.26),
        # two bins: |1 - 0.5| and |0 - 0.9|, one image each
        ((0.5, 0.9), (0, 1), (0.5 + 0.9) / 2),
        # two bins of 2 and 1 images
        ((0.61, 0.65, 0.95), (0, 0, 0), (2 * (1 - 0.63) + (1 - 0.95)) / 3),
    ],
)
def test_calibration_error_by_hand(confidences, labels, expected):
    error = expected_calibration_error(confident(*confidences), np.array(labels))
    assert error == pytest.approx(expected, abs=1e-9)


def test_calibration_error_of_the_naive_guess():
    labels = np.arange(1000) % 10
    error = expected_calibration_error(np.full((1000, 10), 0.1), labels)
    assert error == pytest.approx(0.0, abs=1e-12)
