"""What `training.precision: auto` stands for on this machine: a few steps of the network in both precisions."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fmnist_exp import models
from fmnist_exp.backend import layers, seeds, setup
from fmnist_exp.config.schema import AugmentationConfig, ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.models import transfer
from fmnist_exp.training import fit as fitting
from fmnist_exp.training.events import FitCallback

CALLS = 4  # into the compiled graph, of which the first one traces and is not counted
STEPS = 8  # per call, at most
IMAGES = 8192  # per call, at most: of more in a step, no more come through in a second
VALIDATION = 100  # images; a fit wants some


@dataclass(frozen=True)
class Choice:
    """The faster precision, and how fast both were."""

    precision: str
    images_per_second: Mapping[str, float]  # by precision; empty for a network that has nothing to train
    seconds: float | None  # that it took to find out; None if it was not measured

    def metrics(self) -> dict[str, float]:
        """As logged."""
        speeds = {f"{name}_images_per_second": speed for name, speed in self.images_per_second.items()}
        return speeds if self.seconds is None else {**speeds, "precision_seconds": self.seconds}


def choose(config: ExperimentConfig, data: FashionMNIST) -> Choice:
    """Fit a fresh network for some steps in each precision, on real batches; the weights are thrown away.

    Each counts with its fastest call: whatever else the machine does can only make one slower. Keras is left as it was
    prepared last; call `runtime.prepare` before the network that is to be kept.
    """
    start = time.perf_counter()
    seeds.prepare(config.seed, "float32")
    if config.model.members or not models.build(config.model).trainable_weights:
        return Choice("float32", {}, time.perf_counter() - start)
    speeds = {name: _images_per_second(config, data, name) for name in setup.POLICIES}
    return Choice(max(speeds, key=lambda name: speeds[name]), speeds, time.perf_counter() - start)


def with_precision(config: ExperimentConfig, precision: str) -> ExperimentConfig:
    """The experiment in that precision."""
    return config.model_copy(update={"training": config.training.model_copy(update={"precision": precision})})


def _images_per_second(config: ExperimentConfig, data: FashionMNIST, precision: str) -> float:
    short = _shortened(config, len(data.train.images))
    images = short.training.steps_per_execution * short.training.batch_size
    seeds.prepare(config.seed, precision)
    model = layers.accelerate(models.build(config.model))
    transfer.freeze(model, config.model.frozen)
    clock = _Clock()
    fitting.fit(model, short, _some(data, CALLS * images), [clock])
    return images / float(np.diff(clock.times).min())


def _shortened(config: ExperimentConfig, images: int) -> ExperimentConfig:
    """The experiment as it is fitted to find out: one epoch, whose calls are the experiment's own or smaller ones."""
    whole, changes = config.training, config.augmentation
    size = min(whole.batch_size, IMAGES)
    steps = images * (1 + changes.copies) // whole.batch_size
    # at this rate nothing that is tried can explode; how fast a step is does not depend on it
    fields = {"epochs": 1, "schedule": "constant", "learning_rate": 1e-7, "batch_size": size}
    fields["steps_per_execution"] = max(1, min(whole.steps_per_execution, STEPS, steps, IMAGES // size))
    if changes.copies:  # they are made before the first step: no step changes an image, it only mixes
        changes = AugmentationConfig(mixup=changes.mixup, cutmix=changes.cutmix)
    return config.model_copy(update={"training": whole.model_copy(update=fields), "augmentation": changes})


def _some(data: FashionMNIST, images: int) -> FashionMNIST:
    """So many training images, over again where there are fewer; hardly any to validate."""
    chosen = np.arange(images) % len(data.train.images)
    train = Split(data.train.name, data.train.images[chosen], data.train.labels[chosen])
    few = slice(VALIDATION)
    validation = Split(data.validation.name, data.validation.images[few], data.validation.labels[few])
    return FashionMNIST(train, validation, data.test, data.source)


class _Clock(FitCallback):
    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step(self, epoch: int, step: int, steps: int) -> None:
        self.times.append(time.perf_counter())
