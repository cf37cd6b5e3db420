"""The files of a run: tables and figures of its network, its fit and its evaluation."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from fmnist_exp import models
from fmnist_exp.config.schema import AugmentationConfig, ExperimentConfig
from fmnist_exp.data.augment import examples
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.evaluation.metrics import Evaluation
from fmnist_exp.figures import canvas
from fmnist_exp.figures import run as figures
from fmnist_exp.tracking.names import Artifact
from fmnist_exp.training.fit import Fit


@dataclass(frozen=True)
class ScoredSplit:
    """A split with a model's probabilities (N, 10) for its images, and their evaluation."""

    split: Split
    probabilities: NDArray[np.float32]
    evaluation: Evaluation


def write_training(folder: Path, model: keras.Model, fitted: Fit, data: FashionMNIST, config: ExperimentConfig) -> None:
    """Write the network's table and diagram, the learning curves, and training images with and without augmentation."""
    lines: list[str] = []
    model.summary(print_fn=lines.append, line_length=100)
    _write(folder, Artifact.SUMMARY, "\n".join(lines) + "\n")
    title = f"{config.name}: {model.count_params():,} parameters"
    canvas.save(folder, Artifact.DIAGRAM, figures.model_diagram(models.describe(model), title))
    canvas.save(folder, Artifact.ACCURACY_CURVES, figures.curves(fitted.epochs, "accuracy", fitted.best))
    canvas.save(folder, Artifact.LOSS_CURVES, figures.curves(fitted.epochs, "loss", fitted.best))
    for name, picture in _training_images(data.train, config.augmentation, config.seed).items():
        _write(folder, name, picture)


@functools.lru_cache(maxsize=1)  # they are equal for all trials of a search
def _training_images(train: Split, augmentation: AugmentationConfig, seed: int) -> Mapping[Artifact, bytes]:
    augmented = figures.augmented(examples(train.images, train.labels, augmentation, seed), augmentation)
    samples = figures.samples(train.images, train.labels)
    return {Artifact.SAMPLES: canvas.png(samples), Artifact.AUGMENTED: canvas.png(augmented)}


def write_evaluations(folder: Path, scored: Sequence[ScoredSplit]) -> None:
    """Write all numbers of every split, and figures of the last split: confusion matrix, predictions, mistakes."""
    if not scored:
        return
    report = {part.evaluation.split: part.evaluation.report() for part in scored}
    _write(folder, Artifact.REPORT, json.dumps(report, indent=2) + "\n")
    last = scored[-1]
    images, labels = last.split.images, last.split.labels
    canvas.save(folder, Artifact.CONFUSION_MATRIX, figures.confusion_matrix(last.evaluation))
    canvas.save(folder, Artifact.PREDICTIONS, figures.predictions(images, labels, last.probabilities))
    canvas.save(folder, Artifact.MISTAKES, figures.mistakes(images, labels, last.probabilities))


def _write(folder: Path, name: Artifact, content: str | bytes) -> None:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
