"""The card of a version: its data, training, numbers per class, robustness, limits and lineage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fmnist_exp.config.fields import flatten
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import CLASS_NAMES
from fmnist_exp.evaluation.corruptions import SEVERITIES
from fmnist_exp.registry import versions
from fmnist_exp.registry.document import (
    Block,
    Document,
    Heading,
    Paragraph,
    Picture,
    Points,
    Table,
    to_html,
    to_markdown,
)

if TYPE_CHECKING:
    from fmnist_exp.data.dataset import FashionMNIST
    from fmnist_exp.registry.assessment import Assessment
    from fmnist_exp.registry.lineage import Lineage

TITLE = "Model card"
NEVER_SHOWN = ("name", "search.", "gate.", "data.source", "version.")  # params that say nothing about the model


def compose(found: Assessment, data: FashionMNIST, aliases: Mapping[str, str], run_id: str) -> Document:
    """The card; its pictures are those of the run `run_id`, which evaluated the version."""
    number = found.lineage.number
    named = [alias for alias, version in aliases.items() if version == number]
    blocks: list[Block] = [
        Paragraph(_opening(found)),
        Table(_overview(found, named)),
        *_use(),
        *_data(found.lineage, data),
        *_training(found.lineage),
        *_classes(found),
        *_robustness(found),
        *_calibration(found),
        Heading("Limits"),
        Points(_limits(found)),
        Heading("Lineage"),
        Table(_lineage(found.lineage, run_id)),
    ]
    return Document(f"{TITLE}: {versions.NAME}, version {number}", blocks)


def write(folder: Path, card: Document) -> None:
    """Write the card in both forms into the folder that holds its pictures."""
    (folder / "model_card.md").write_text(to_markdown(card), encoding="utf-8")
    (folder / "model_card.html").write_text(to_html(card, folder), encoding="utf-8")


def summary(found: Assessment, run_id: str) -> str:
    """The version's description."""
    return f"{TITLE}: {_opening(found)} The whole card: run {run_id}, model_card.html."


def _opening(found: Assessment) -> str:
    return (
        f"Names the garment on a 28 × 28 grey image, one of ten. Right on {found.test.accuracy:.2%} of the"
        f" {found.test.confusion.sum():,} test images, and on {found.mean.accuracy:.1%} of corrupted copies of them,"
        f" the mean of {len(found.corrupted)} corruptions at five severities."
    )


def _overview(found: Assessment, aliases: list[str]) -> list[tuple[str, str]]:
    metrics = found.lineage.metrics
    rows = [
        ("version", f"{found.lineage.number} ({', '.join(aliases) or 'no alias'})"),
        ("input", "images (N, 28, 28) or (N, 28, 28, 1), uint8 or float, 0…255, light garment on black"),
        ("output", "a row per image: label, name, probability, p0 … p9"),
        ("parameters", f"{metrics['parameters']:,.0f}" if "parameters" in metrics else "unknown"),
        ("test accuracy", f"{found.test.accuracy:.2%}"),
        ("test cross-entropy", f"{found.test.loss:.4f} nats"),
        ("test calibration error (ECE)", f"{found.test.ece:.2%}"),
    ]
    if "best_val_accuracy" in metrics:
        rows.append(("validation accuracy of its run", f"{metrics['best_val_accuracy']:.2%}"))
    return rows


def _use() -> list[Block]:
    return [
        Heading("Use"),
        Paragraph(
            "Made for learning, and for comparing methods on Fashion-MNIST. It is not made for photographs, for other"
            " garments, or for any decision about people."
        ),
    ]


def _data(subject: Lineage, data: FashionMNIST) -> list[Block]:
    labels = "10 classes in equal parts: " + ", ".join(CLASS_NAMES)
    rows = [
        ("data set", "Fashion-MNIST (Xiao, Rasul, Vollgraf 2017), Zalando's article images; MIT licence"),
        ("source", data.source),
        ("training images", f"{len(data.train.images):,}, digest {data.train.digest}"),
        ("validation images", f"{len(data.validation.images):,}, digest {data.validation.digest}"),
        ("test images", f"{len(data.test.images):,}, digest {data.test.digest}"),
        ("labels", labels),
    ]
    note = "The split is stratified and seeded; digests are of pixels and labels."
    if subject.refit:
        note += " This version was then fitted again on training and validation images together."
    return [Heading("Data"), Table(rows), Paragraph(note)]


def _training(subject: Lineage) -> list[Block]:
    """The settings that differ from the schema's defaults, beside the family and what fitting took."""
    defaults = {key: "" if value is None else str(value) for key, value in flatten(ExperimentConfig()).items()}
    always = ("model.family", "training.epochs", "training.batch_size", "training.optimizer", "training.learning_rate")
    rows = [
        (key, value)
        for key, value in subject.params.items()
        if not key.startswith(NEVER_SHOWN) and (key in always or _same(value) != _same(defaults.get(key, "")))
    ]
    for key, title, unit in (("best_epoch", "epoch kept", ""), ("fit_seconds", "time of the fit", " s")):
        if key in subject.metrics:
            rows.append((title, f"{subject.metrics[key]:,.0f}{unit}"))
    versions = [f"{key.partition('.')[2]} {value}" for key, value in subject.params.items() if "version." in key]
    rows.append(("libraries", ", ".join(versions) or "unknown"))
    return [
        Heading("Training"),
        Table(rows),
        Paragraph("Settings that are not listed have the defaults of fmnist_exp/config/schema.py at the commit below."),
    ]


def _same(value: str) -> str:
    """A param's spelling made comparable: MLflow's text has true for True, lists for tuples."""
    return value.lower().strip("()[]").rstrip(",")


def _classes(found: Assessment) -> list[Block]:
    rows = []
    for label, (name, row) in enumerate(found.test.per_class.items()):
        wrong = found.test.confusion[label].copy()
        wrong[label] = 0
        taken = f"{CLASS_NAMES[wrong.argmax()]} ({wrong.max()})" if wrong.max() else "–"
        scores = [f"{row[column]:.1%}" for column in ("recall", "precision", "f1-score")]
        rows.append((name, f"{row['support']:.0f}", *scores, taken))
    header = ("class", "images", "accuracy (recall)", "precision", "F1", "most often taken for")
    picture = Picture("evaluation/confusion_matrix.png", "Confusion matrix of the test set.")
    return [Heading("Numbers per class, test set"), Table(rows, header), picture]


def _robustness(found: Assessment) -> list[Block]:
    rows = []
    for name, levels in found.corrupted.items():
        means = np.mean([(level.accuracy, level.ece) for level in levels], axis=0)
        rows.append((name, *(f"{level.accuracy:.1%}" for level in levels), *(f"{mean:.1%}" for mean in means)))
    header = ("corruption", *map(str, SEVERITIES), "mean", "mean ECE")
    return [
        Heading("Robustness"),
        Paragraph(
            f"Accuracy on corrupted test images by severity (seed {found.seed}): {found.mean.accuracy:.1%} over all of"
            f" them at an ECE of {found.mean.ece:.1%}, beside {found.clean.accuracy:.1%} at {found.clean.ece:.1%} on"
            " clean ones."
        ),
        Table(rows, header),
        Picture("robustness/curves.png", "Where the dashed line is above the solid one, the model is too sure."),
        Picture("robustness/samples.png", "What the severities look like; drawn as negatives, dark on white."),
    ]


def _calibration(found: Assessment) -> list[Block]:
    blocks: list[Block] = [Heading("Calibration")]
    if fitted := found.temperature:
        blocks.append(
            Paragraph(
                f"Temperature scaling, fitted on validation images: T = {fitted.value:.3f}. It is not applied when the"
                " version is served; divide the logarithms of the probabilities by T and take the softmax."
            )
        )
        scaled = found.mean.scaled_ece or 0.0
        rows = [
            ("validation", f"{fitted.validation[0]:.2%}", f"{fitted.validation[1]:.2%}"),
            ("test", f"{fitted.test[0]:.2%}", f"{fitted.test[1]:.2%}"),
            ("corrupted test, mean", f"{found.mean.ece:.2%}", f"{scaled:.2%}"),
        ]
        blocks.append(Table(rows, ("expected calibration error", "as trained", "with temperature")))
    caption = "Accuracy by confidence, in 15 bins; on the diagonal a probability means what it says."
    return [*blocks, Picture("evaluation/reliability.png", caption)]


def _limits(found: Assessment) -> list[str]:
    recall = {name: row["recall"] for name, row in found.test.per_class.items()}
    weakest = min(recall, key=lambda name: recall[name])
    confusion = found.test.confusion - np.diag(np.diag(found.test.confusion))
    true, taken = np.unravel_index(confusion.argmax(), confusion.shape)
    worst = min(found.corrupted, key=lambda name: found.corrupted[name][-1].accuracy)
    sure = found.corrupted[worst][-1]
    lean = "too sure" if found.clean.confidence > found.test.accuracy else "not sure enough"
    return [
        f"Weakest on {weakest}: {recall[weakest]:.1%} of its test images are right."
        f" The commonest mistake is {CLASS_NAMES[true]} taken for {CLASS_NAMES[taken]} ({confusion.max()} times).",
        f"Of the corruptions, {worst} hurts most: {sure.accuracy:.1%} right at severity 5, at a mean confidence of"
        f" {sure.confidence:.1%}. A high probability is no sign that an image is like those it was trained on.",
        f"On clean test images it is {lean}: mean confidence {found.clean.confidence:.1%}.",
        "There is no answer “none of these”: a picture of anything gets one of the ten names.",
        "It expects centred, light garments on black, as Fashion-MNIST has them; dark on white is inversion 5.",
        f"An accuracy from {found.test.confusion.sum():,} images is uncertain by about"
        f" ±{1.96 * np.sqrt(found.test.accuracy * (1 - found.test.accuracy) / found.test.confusion.sum()):.1%}"
        " (95 %).",
    ]


def _lineage(subject: Lineage, run_id: str) -> list[tuple[str, str]]:
    tags = subject.version.tags
    rows = [
        ("training run", str(subject.version.run_id)),
        ("experiment", subject.tags.get("fmnist.experiment", "unknown")),
        ("evaluated by run", run_id),
        ("logged model", subject.model_id or str(subject.version.source)),
        ("git commit", tags.get("git_commit") or subject.tags.get("mlflow.source.git.commit") or "unknown"),
    ]
    if subject.refit:
        rows.insert(1, ("fitted again from run", subject.run_id))
    named = {"study": "study", "trial": "trial", "gate_verdict": "gate", "champion_why": "why it became champion"}
    return rows + [(title, tags[key]) for key, title in named.items() if tags.get(key)]
