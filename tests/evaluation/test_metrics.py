"""The numbers of a split, compared with those of scikit-learn."""

import json

import numpy as np
import pytest
from sklearn import metrics

from fmnist_exp.data.formats import CLASS_NAMES
from fmnist_exp.evaluation import metrics as scoring


@pytest.fixture
def answers(small) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (200, 10) that are right about half of the time, and the real labels."""
    random = np.random.default_rng(0)
    scores = random.normal(size=(200, 10)) + 2 * np.eye(10)[small.test.labels]
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), small.test.labels


def test_against_scikit_learn(answers):
    probabilities, labels = answers
    found = scoring.evaluate(probabilities, labels, "test")
    predicted = probabilities.argmax(axis=1)
    assert 0.3 < found.accuracy < 0.9
    assert found.accuracy == metrics.accuracy_score(labels, predicted)
    assert found.loss == pytest.approx(-np.log(probabilities[np.arange(200), labels]).mean(), rel=1e-5)
    assert np.array_equal(found.confusion, metrics.confusion_matrix(labels, predicted))
    report = metrics.classification_report(labels, predicted, target_names=CLASS_NAMES, output_dict=True)
    for name in CLASS_NAMES:
        assert found.per_class[name] == pytest.approx(report[name])


def test_metrics_have_the_documented_names(answers):
    found = scoring.evaluate(*answers, "test").metrics()
    assert list(found) == [
        *("test_accuracy", "test_loss", "test_ece"),
        *("test_accuracy_t_shirt_top", "test_accuracy_trouser", "test_accuracy_pullover", "test_accuracy_dress"),
        *("test_accuracy_coat", "test_accuracy_sandal", "test_accuracy_shirt", "test_accuracy_sneaker"),
        *("test_accuracy_bag", "test_accuracy_ankle_boot"),
    ]
    probabilities, labels = answers
    coats = labels == CLASS_NAMES.index("Coat")
    assert found["test_accuracy_coat"] == np.mean(probabilities[coats].argmax(axis=1) == 4)


def test_report_is_json(answers):
    found = scoring.evaluate(*answers, "validation")
    report = json.loads(json.dumps(found.report()))
    assert (report["split"], report["images"], report["accuracy"]) == ("validation", 200, found.accuracy)
    assert np.array(report["confusion"]).trace() == round(found.accuracy * 200)
    assert report["classes"]["Bag"]["support"] == 20


def test_classes_that_are_missing_or_never_answered():
    probabilities = np.tile(np.eye(10, dtype=np.float32)[3] * 0.91 + 0.009, (5, 1))
    found = scoring.evaluate(probabilities, np.array([3, 3, 1, 3, 1]), "test")
    assert found.accuracy == pytest.approx(0.6)
    assert found.confusion.shape == (10, 10)
    assert found.per_class["Dress"] == {"precision": 0.6, "recall": 1.0, "f1-score": 0.75, "support": 3}
    assert found.per_class["Bag"] == {"precision": 0.0, "recall": 0.0, "f1-score": 0.0, "support": 0}
    assert all(np.isfinite(list(found.metrics().values())))


def test_a_sure_mistake_has_a_finite_loss():
    found = scoring.evaluate(np.eye(10, dtype=np.float32)[[0, 1]], np.array([0, 2]), "test")
    assert np.isfinite(found.loss)
    assert found.loss > 5


@pytest.mark.parametrize(
    ("name", "slug"), [("Ankle boot", "ankle_boot"), ("T-shirt/top", "t_shirt_top"), ("Bag", "bag")]
)
def test_slug(name, slug):
    assert scoring.slug(name) == slug
