"""The scores of a stand-in model that predicts clean images correctly and all others wrongly."""

import numpy as np
import pytest

from fmnist_exp.evaluation import calibration, robustness
from fmnist_exp.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt


def answers(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return probabilities of 0.91 for the true class where `right`, and for the next class elsewhere."""
    return np.eye(10, dtype=np.float32)[np.where(right, labels, (labels + 1) % 10)] * np.float32(0.9) + np.float32(0.01)


def test_every_corruption_is_scored_at_every_severity(small):
    images, labels, seed = small.test.images, small.test.labels, 3
    said: list[str] = []

    def predict(corrupted: np.ndarray) -> np.ndarray:
        return answers((corrupted == images).all(axis=(1, 2)), labels)

    found = robustness.score_corrupted(predict, images, labels, seed, None, said.append)
    assert list(found) == list(CORRUPTIONS)
    assert said == [f"{name}, severity {severity}" for name in CORRUPTIONS for severity in SEVERITIES]
    for name, levels in found.items():
        assert len(levels) == len(SEVERITIES)
        for severity, level in zip(SEVERITIES, levels, strict=True):
            unchanged = (corrupt(name, images, severity, seed) == images).all(axis=(1, 2)).mean()
            assert level.accuracy == unchanged
            assert level.confidence == pytest.approx(0.91)
            assert level.ece == pytest.approx(abs(unchanged - 0.91))
            assert level.scaled_ece is None


def test_a_level_has_the_error_at_the_temperature():
    labels = np.arange(200) % 10
    probabilities = answers(np.arange(200) % 2 == 0, labels)
    level = robustness.level(probabilities, labels, 3.0)
    assert level.ece == pytest.approx(0.41)
    scaled = calibration.scale(probabilities, 3.0).max(axis=1).mean()
    assert level.scaled_ece == pytest.approx(abs(0.5 - scaled))


def test_the_mean_of_levels():
    levels = [robustness.Level(0.5, 0.7, 0.2, 0.1), robustness.Level(0.7, 0.9, 0.4, 0.3)]
    assert vars(robustness.mean_level(levels)) == pytest.approx(vars(robustness.Level(0.6, 0.8, 0.3, 0.2)))
    assert robustness.mean_level([robustness.Level(0.5, 0.7, 0.2, None)]).scaled_ece is None


def test_the_temperature_of_validation_is_measured_on_both_splits():
    labels = np.arange(1000) % 10
    validation, test = answers(np.arange(1000) % 2 == 0, labels), answers(np.arange(1000) % 4 > 0, labels)
    found = robustness.fit_temperature((validation, labels), (test, labels))
    assert found.value == calibration.fit_temperature(validation, labels)
    assert found.validation == pytest.approx((0.41, 0.0), abs=1e-3)
    assert found.test == pytest.approx((0.16, 0.25), abs=1e-3)
