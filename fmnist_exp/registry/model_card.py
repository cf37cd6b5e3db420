"""A version's model card: its data, training, numbers per class, robustness, limits and lineage."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mlflow.entities import Run
from numpy.typing import NDArray

from fmnist_exp.config.fields import flatten
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.data.formats import CLASS_NAMES
from fmnist_exp.evaluation import intervals, robustness
from fmnist_exp.evaluation.corruptions import SEVERITIES
from fmnist_exp.evaluation.metrics import Evaluation
from fmnist_exp.registry import versions
from fmnist_exp.registry.lineage import Lineage
from fmnist_exp.registry.rendering import Syntax, render
from fmnist_exp.tracking import names
from fmnist_exp.tracking.inputs import image_counts
from fmnist_exp.tracking.names import Artifact, Metric, VersionTag
from fmnist_exp.tracking.writing import param_text

Rows = list[tuple[str, ...]]

FILES: dict[Artifact, Syntax] = {Artifact.MODEL_CARD_MARKDOWN: "markdown", Artifact.MODEL_CARD: "html"}
PICTURES = (Artifact.CONFUSION_MATRIX, Artifact.RELIABILITY, Artifact.ROBUSTNESS_CURVES, Artifact.ROBUSTNESS_SAMPLES)
ALWAYS_SHOWN = (
    "model.family",
    *(f"training.{name}" for name in ("epochs", "batch_size", "optimizer", "learning_rate")),
)
NEVER_SHOWN = ("name", "search.", "gate.", "data.source", "version.")  # params that say nothing about the model


@dataclass(frozen=True, eq=False)
class Assessment:
    """Everything that `fmnist-exp evaluate` measures on a version."""

    lineage: Lineage
    seed: int  # of the corruptions
    test: Evaluation
    probabilities: NDArray[np.float32]  # (10000, 10) for the test set
    clean: robustness.Level
    corrupted: Mapping[str, tuple[robustness.Level, ...]]  # corruption → one level per severity
    temperature: robustness.Temperature | None

    @property
    def mean(self) -> robustness.Level:
        """The mean over all corruptions and severities."""
        return robustness.mean_level(level for levels in self.corrupted.values() for level in levels)

    @property
    def mean_text(self) -> str:
        """The mean accuracy over all corruptions and severities with its 95% interval."""
        return intervals.text(self.mean.accuracy, self.test.images)

    @property
    def half_width(self) -> float:
        """Half the width of the widest 95% interval of an accuracy on corrupted images."""
        levels = (level for levels in self.corrupted.values() for level in levels)
        return intervals.largest_half((level.accuracy, self.test.images) for level in levels)


def write(folder: Path, found: Assessment, data: FashionMNIST, aliases: Mapping[str, str], run_id: str) -> None:
    """Write the card as Markdown and as HTML into the folder that holds its pictures.

    `data` are the images that were evaluated by the run `run_id`; `aliases` maps each alias to a version's number.
    """
    subject = found.lineage
    encoded = {name: base64.b64encode((folder / name).read_bytes()).decode("ascii") for name in PICTURES}
    values: dict[str, object] = {
        "name": versions.NAME,
        "uri": versions.uri(subject.version),
        "aliases": [alias for alias, number in aliases.items() if number == subject.number],
        "subject": subject,
        "recorded": subject.run.data,
        "validation": _validation(subject.held_out.run),
        "names": names,
        "found": found,
        "data": data,
        "splits": _splits(data),
        "class_names": CLASS_NAMES,
        "training": _training(subject),
        "classes": _classes(found),
        "halves": _halves(found),
        "bounds": intervals.bounds(found.test.accuracy, found.test.images),
        "gate": _gate(subject.version.tags),
        "agreement": subject.version.tags.get(VersionTag.GATE_AGREEMENT),
        "severities": [str(severity) for severity in SEVERITIES],
        "corrupted": _corrupted(found),
        "extremes": _extremes(found),
        "run_id": run_id,
        "pictures": {name: f"data:image/png;base64,{content}" for name, content in encoded.items()},
    }
    for file, syntax in FILES.items():
        (folder / file).write_text(render("model_card", syntax, **values), encoding="utf-8")


def _training(subject: Lineage) -> Rows:
    """Return the settings that differ from the schema's defaults, the result of the fit and the libraries."""
    recorded = subject.run.data
    defaults = {key: param_text(value) for key, value in flatten(ExperimentConfig()).items()}
    rows: Rows = [
        (key, value)
        for key, value in recorded.params.items()
        if not key.startswith(NEVER_SHOWN) and (key in ALWAYS_SHOWN or value != defaults.get(key, ""))
    ]
    results = {Metric.BEST_EPOCH: ("best epoch", ""), Metric.FIT_SECONDS: ("time of the fit", " s")}
    if recorded.params.get("model.members", "[]") != "[]":
        results.clear()
        rows.append(("fit", "none of its own: it averages the probabilities of its members"))
    for metric, (title, unit) in results.items():
        if metric in recorded.metrics:
            rows.append((title, f"{recorded.metrics[metric]:,.0f}{unit}"))
    libraries = [f"{key.partition('.')[2]} {value}" for key, value in recorded.params.items() if "version." in key]
    return [*rows, ("libraries", ", ".join(libraries) or "unknown")]


def _splits(data: FashionMNIST) -> Rows:
    splits = {"training": data.train, "validation": data.validation, "gate": data.gate, "test": data.test}
    return [
        (f"{name} images", f"{len(split.labels):,}, digest {split.digest}" if len(split.labels) else "none")
        for name, split in splits.items()
    ]


def _validation(run: Run) -> str | None:
    """Return the validation accuracy of a run's model with its 95% interval, or None without validation images."""
    accuracy = run.data.metrics.get(Metric.BEST_VAL_ACCURACY)
    return None if accuracy is None else intervals.text(accuracy, image_counts(run).get("validation", 0))


def _gate(tags: Mapping[str, str]) -> str | None:
    """Return the accuracy on the images on which the gate compared the version, or None if it compared nothing."""
    accuracy = tags.get(VersionTag.GATE_CHALLENGER_ACCURACY)
    return None if accuracy is None else intervals.text(float(accuracy), int(tags[VersionTag.GATE_IMAGES]))


def _classes(found: Assessment) -> Rows:
    rows: Rows = []
    for label, (name, row) in enumerate(found.test.per_class.items()):
        wrong = found.test.confusion[label].copy()
        wrong[label] = 0
        mistaken = f"{CLASS_NAMES[wrong.argmax()]} ({wrong.max()})" if wrong.max() else "–"
        scores = [f"{row[column]:.1%}" for column in ("recall", "precision", "f1-score")]
        rows.append((name, f"{row['support']:.0f}", *scores, mistaken))
    return rows


def _halves(found: Assessment) -> dict[str, float]:
    """Return the largest half width of a 95% interval in the table of classes and in that of corruptions."""
    classes = [(row["recall"], int(row["support"])) for row in found.test.per_class.values() if row["support"]]
    return {"class": intervals.largest_half(classes), "corruption": found.half_width}


def _corrupted(found: Assessment) -> Rows:
    rows: Rows = []
    for name, levels in found.corrupted.items():
        means = np.mean([(level.accuracy, level.ece) for level in levels], axis=0)
        rows.append((name, *(f"{level.accuracy:.1%}" for level in levels), *(f"{mean:.1%}" for mean in means)))
    return rows


def _extremes(found: Assessment) -> dict[str, object]:
    """Return the class, the mistake and the corruption at which the model is worst, with the accuracies there."""
    classes = found.test.per_class
    weakest = min(classes, key=lambda name: classes[name]["recall"])
    recall = intervals.text(classes[weakest]["recall"], int(classes[weakest]["support"]))
    mistakes = found.test.confusion - np.diag(np.diag(found.test.confusion))
    true, predicted = np.unravel_index(mistakes.argmax(), mistakes.shape)
    hardest = min(found.corrupted, key=lambda name: found.corrupted[name][-1].accuracy)
    mistake = {"true": CLASS_NAMES[true], "predicted": CLASS_NAMES[predicted], "times": mistakes.max()}
    accuracy = intervals.text(found.corrupted[hardest][-1].accuracy, found.test.images)
    return {"weakest": weakest, "recall": recall, "mistake": mistake, "hardest": hardest, "accuracy": accuracy}
