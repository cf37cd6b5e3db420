"""Choose the precision for `training.precision: auto`: time a few steps in each precision on this machine."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import keras
import numpy as np

from fmnist_exp import models
from fmnist_exp.backend import layers, seeds, setup
from fmnist_exp.config.schema import AugmentationConfig, ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.models import transfer
from fmnist_exp.training import fit as fitting
from fmnist_exp.training.events import FitCallback

CALLS = 4  # of the compiled training function; the first one traces it and is not counted
STEPS = 8  # per call, at most
IMAGES = 8192  # per call, at most; larger batches do not raise the number of images per second


@dataclass(frozen=True)
class Choice:
    """The faster precision, and the speeds that were measured."""

    precision: str
    images_per_second: Mapping[str, float]  # by precision; empty if the network has no weights to train
    seconds: float | None  # that the measurement took; None if it was made earlier

    def metrics(self) -> dict[str, float]:
        """Return the metrics that a run logs."""
        speeds = {f"{name}_images_per_second": speed for name, speed in self.images_per_second.items()}
        return speeds if self.seconds is None else {**speeds, "precision_seconds": self.seconds}


def choose(config: ExperimentConfig, data: FashionMNIST) -> Choice:
    """Fit a new network for a few steps in each precision, on real batches, and return the faster precision.

    Each precision is judged by its fastest call, because other processes can only slow a call down. The process keeps
    the precision that was measured last: call `seeds.prepare` before you build the network that is to be kept.
    """
    start = time.perf_counter()
    speeds: dict[str, float] = {}
    for precision in () if config.model.members else setup.POLICIES:  # an ensemble's networks are trained already
        seeds.prepare(config.seed, precision)
        model = layers.accelerate(models.build(config.model))
        transfer.freeze(model, config.model.frozen)
        if not model.trainable_weights:
            break
        speeds[precision] = _images_per_second(model, config, data)
    fastest = max(speeds, key=speeds.__getitem__, default="float32")
    return Choice(fastest, speeds, time.perf_counter() - start)


def _images_per_second(model: keras.Model, config: ExperimentConfig, data: FashionMNIST) -> float:
    short = _shortened(config, len(data.train.images))
    images = short.training.steps_per_execution * short.training.batch_size  # per call
    chosen = np.arange(CALLS * images) % len(data.train.images)  # repeats the images if there are too few
    train = Split(data.train.name, data.train.images[chosen], data.train.labels[chosen])
    empty = Split(data.validation.name, train.images[:0], train.labels[:0])
    clock = _Clock()
    fitting.fit(model, short, FashionMNIST(train, empty, data.test, data.source), [clock])
    return images / float(np.diff(clock.times).min())


def _shortened(config: ExperimentConfig, images: int) -> ExperimentConfig:
    """Return the experiment with one epoch of calls that are no larger than its own."""
    whole, changes = config.training, config.augmentation
    size = min(whole.batch_size, IMAGES)
    steps = images * (1 + changes.copies) // whole.batch_size
    # at this learning rate no network diverges; the rate does not change how fast a step is
    fields = {"epochs": 1, "schedule": "constant", "learning_rate": 1e-7, "batch_size": size}
    fields["steps_per_execution"] = max(1, min(whole.steps_per_execution, STEPS, steps, IMAGES // size))
    if changes.copies:  # they are made before the first step; a step then only mixes images
        changes = AugmentationConfig(mixup=changes.mixup, cutmix=changes.cutmix)
    return config.model_copy(update={"training": whole.model_copy(update=fields), "augmentation": changes})


@dataclass
class _Clock(FitCallback):
    times: list[float] = field(default_factory=list)

    def on_step(self, epoch: int, step: int, steps: int) -> None:
        self.times.append(time.perf_counter())
