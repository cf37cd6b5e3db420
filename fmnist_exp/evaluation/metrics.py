"""The scores of a model on one split: loss and accuracy, and counts by class."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

from fmnist_exp.data.formats import CLASS_NAMES
from fmnist_exp.evaluation import intervals
from fmnist_exp.evaluation.calibration import Labels, Probabilities, expected_calibration_error


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model on one split."""

    split: str
    accuracy: float
    loss: float  # mean cross-entropy in nats, without any penalty on the weights
    ece: float  # expected calibration error
    per_class: dict[str, dict[str, float]]  # class name → precision, recall, f1-score, support
    confusion: NDArray[np.int64]  # (10, 10), rows true, columns predicted

    @property
    def images(self) -> int:
        """The number of images that were scored."""
        return int(self.confusion.sum())

    @property
    def text(self) -> str:
        """The accuracy with its 95% interval."""
        return intervals.text(self.accuracy, self.images)

    def metrics(self) -> dict[str, float]:
        """Return the metrics that a run logs, such as `test_accuracy`; the accuracy on a class is its recall."""
        figures = {"accuracy": self.accuracy, "loss": self.loss, "ece": self.ece}
        figures |= {f"accuracy_{slug(name)}": row["recall"] for name, row in self.per_class.items()}
        return {f"{self.split}_{name}": value for name, value in figures.items()}

    def report(self) -> dict[str, object]:
        """Return all scores, ready for JSON."""
        return {
            "split": self.split,
            "images": self.images,
            "accuracy": self.accuracy,
            "loss": self.loss,
            "expected_calibration_error": self.ece,
            "classes": self.per_class,
            "confusion": self.confusion.tolist(),
        }


def evaluate(probabilities: Probabilities, labels: Labels, split: str) -> Evaluation:
    """Score probabilities (N, 10) against labels (N,)."""
    classes = np.arange(len(CLASS_NAMES))
    predicted = probabilities.argmax(axis=1)
    table = precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0.0)
    rows = np.stack(table, axis=1).tolist()  # one for each class
    columns = ("precision", "recall", "f1-score", "support")
    exact = probabilities.astype(np.float64)
    return Evaluation(
        split=split,
        accuracy=float(np.mean(predicted == labels)),
        loss=float(log_loss(labels, exact / exact.sum(axis=1, keepdims=True), labels=classes)),
        ece=expected_calibration_error(probabilities, labels),
        per_class={name: dict(zip(columns, row, strict=True)) for name, row in zip(CLASS_NAMES, rows, strict=True)},
        confusion=confusion_matrix(labels, predicted, labels=classes),
    )


def slug(name: str) -> str:
    """Return a class name as metric names contain it: `Ankle boot` becomes `ankle_boot`."""
    return "".join(letter if letter.isalnum() else "_" for letter in name.lower())
