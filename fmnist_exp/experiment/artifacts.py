"""The files of a run: what its network looks like, how the fit went, what the model answers."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmnist_exp import models
from fmnist_exp.config.schema import AugmentationConfig, ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.figures import canvas
from fmnist_exp.figures import run as run_figures
from fmnist_exp.training.events import Epoch
from fmnist_exp.training.fit import Fit

if TYPE_CHECKING:
    import keras

    from fmnist_exp.evaluation.metrics import Evaluation


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
    canvas.save(folder, "model/diagram.png", run_figures.model_diagram(models.describe(model), title))


def write_fit(folder: Path, fitted: Fit, data: FashionMNIST, config: ExperimentConfig) -> None:
    """Write the learning curves, and images as they are and as training changes them."""
    epochs: Sequence[Epoch] = fitted.epochs
    canvas.save(folder, "curves/accuracy.png", run_figures.curves(epochs, "accuracy", fitted.best))
    canvas.save(folder, "curves/loss.png", run_figures.curves(epochs, "loss", fitted.best))
    (folder / "data").mkdir()
    for name, picture in _training_pictures(data.train, config.augmentation, config.seed).items():
        (folder / "data" / name).write_bytes(picture)


@functools.lru_cache(maxsize=1)  # the trials of a search have them in common
def _training_pictures(train: Split, augmentation: AugmentationConfig, seed: int) -> Mapping[str, bytes]:
    """PNG files by name."""
    changed = run_figures.augmented(train.images, train.labels, augmentation, seed)
    samples = run_figures.samples(train.images, train.labels)
    return {"samples.png": canvas.png(samples), "augmented.png": canvas.png(changed)}


def write_evaluations(folder: Path, pictured: Sequence[Pictured]) -> None:
    """Write evaluation/: every number by split; of the last one the confusion matrix, answers, mistakes."""
    if not pictured:
        return
    last = pictured[-1]
    images, labels, answers = last.split.images, last.split.labels, np.asarray(last.probabilities)
    canvas.save(folder, "evaluation/confusion_matrix.png", run_figures.confusion_matrix(last.evaluation))
    canvas.save(folder, "evaluation/predictions.png", run_figures.predictions(images, labels, answers))
    canvas.save(folder, "evaluation/mistakes.png", run_figures.mistakes(images, labels, answers))
    report = {one.evaluation.split: one.evaluation.report() for one in pictured}
    (folder / "evaluation" / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
