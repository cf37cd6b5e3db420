"""The files of a run: what its network looks like, how the fit went, what the model answers."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmnist_exp import figures, models
from fmnist_exp.config import AugmentationConfig, ExperimentConfig
from fmnist_exp.data import FashionMNIST, Split
from fmnist_exp.training import Epoch, Fit

if TYPE_CHECKING:
    import keras

    from fmnist_exp.evaluation import Evaluation


@dataclass(frozen=True)
class Pictured:
    """A split with a model's answers for it: what the pictures of an evaluation need."""

    split: Split
    probabilities: Any  # (N, 10) float32
    evaluation: Evaluation


def write_model(folder: Path, model: keras.Model, config: ExperimentConfig) -> None:
    """Write model/: its layers as a table and as a diagram."""
    lines: list[str] = []
    model.summary(print_fn=lines.append, line_length=100)
    (folder / "model").mkdir()
    (folder / "model" / "summary.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    title = f"{config.name}: {model.count_params():,} parameters"
    figures.save(folder, "model/diagram.png", figures.model_diagram(models.describe(model), title))


def write_fit(folder: Path, fitted: Fit, data: FashionMNIST, config: ExperimentConfig) -> None:
    """Write the learning curves, and images as they are and as training changes them."""
    epochs: Sequence[Epoch] = fitted.epochs
    figures.save(folder, "curves/accuracy.png", figures.curves(epochs, "accuracy", fitted.best))
    figures.save(folder, "curves/loss.png", figures.curves(epochs, "loss", fitted.best))
    (folder / "data").mkdir()
    for name, picture in _training_pictures(data.train, config.augmentation, config.seed).items():
        (folder / "data" / name).write_bytes(picture)


@functools.lru_cache(maxsize=1)  # the trials of a search have them in common
def _training_pictures(train: Split, augmentation: AugmentationConfig, seed: int) -> Mapping[str, bytes]:
    """PNG files by name."""
    changed = figures.augmented(train.images, train.labels, augmentation, seed)
    samples = figures.samples(train.images, train.labels)
    return {"samples.png": figures.png(samples), "augmented.png": figures.png(changed)}


def write_evaluations(folder: Path, pictured: Sequence[Pictured]) -> None:
    """Write evaluation/: every number by split; of the last one the confusion matrix, answers, mistakes."""
    if not pictured:
        return
    last = pictured[-1]
    images, labels, answers = last.split.images, last.split.labels, np.asarray(last.probabilities)
    figures.save(folder, "evaluation/confusion_matrix.png", figures.confusion_matrix(last.evaluation))
    figures.save(folder, "evaluation/predictions.png", figures.predictions(images, labels, answers))
    figures.save(folder, "evaluation/mistakes.png", figures.mistakes(images, labels, answers))
    report = {one.evaluation.split: one.evaluation.report() for one in pictured}
    (folder / "evaluation" / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
