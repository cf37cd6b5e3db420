"""Measure how fast a network trains in each precision, and remember it per processor and network."""

import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fmnist_exp import models
from fmnist_exp.backend import hardware, layers, seeds, setup
from fmnist_exp.config.schema import AugmentationConfig, ExperimentConfig
from fmnist_exp.data.cache import cache_folder
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.models import transfer
from fmnist_exp.training import fit as fitting
from fmnist_exp.training.events import FitCallback

CALLS = 4  # of the compiled training function; the first one traces it and is not counted
STEPS = 8  # per call, at most
FEW_CALLS, FEW_STEPS = 3, 4  # for an estimate, which has to be known soon also where a step takes a quarter of a second
IMAGES = 8192  # per call, at most; larger batches do not raise the number of images per second
LARGEST_ENTRY = 100_000  # bytes of a file of the cache; anything larger is damaged

Speeds = Mapping[str, float]  # precision → images per second


def recall(config: ExperimentConfig) -> Speeds | None:
    """Return the speeds that were measured before for this network on this processor, or None."""
    key = _key(config)
    # a damaged file is like a missing one
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError), _file(key).open("rb") as file:
        entry = json.loads(file.read(LARGEST_ENTRY))
        speeds = {name: float(entry["images_per_second"][name]) for name in setup.POLICIES}
        if entry["key"] == key and all(0 < speed < math.inf for speed in speeds.values()):
            return speeds
    return None


def remember(config: ExperimentConfig, speeds: Speeds) -> None:
    """Write measured speeds into the user's cache folder. If that fails, they are measured again next time."""
    key = _key(config)
    file = _file(key)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        # another process may be writing the same file: each writes its own, and the renaming is atomic
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".writing-") as temporary:
            draft = Path(temporary) / file.name
            draft.write_text(json.dumps({"key": key, "images_per_second": dict(speeds)}, indent=1), encoding="utf-8")
            os.replace(draft, file)


def measure(config: ExperimentConfig, data: FashionMNIST) -> Speeds:
    """Fit a new network for a few steps in each precision, on real batches, and return the speeds.

    Each precision is judged by its fastest call, because other processes can only slow a call down. The process keeps
    the precision that was measured last: call `seeds.prepare` before you build the network that is to be kept.
    """
    return {precision: _images_per_second(precision, config, data, CALLS, STEPS) for precision in setup.POLICIES}


def epoch_seconds(config: ExperimentConfig, data: FashionMNIST) -> float:
    """Return the seconds that the steps of an epoch take here in the experiment's precision, from a few timed ones.

    Call `seeds.prepare` before you build the network that is to be kept.
    """
    images = len(data.train.images) * (1 + config.augmentation.copies)
    return images / _images_per_second(config.training.precision, config, data, FEW_CALLS, FEW_STEPS)


def _key(config: ExperimentConfig) -> dict[str, object]:
    """Return everything on which the speeds depend."""
    processor = hardware.processor()
    network = config.model.model_dump(mode="json", exclude={"warm_start", "averaging"})  # they do not change the fit
    return {
        "processor": processor.name,
        "flags": sorted(processor.flags or ()),
        "threads": setup.threads(),
        "backend": setup.version(),
        "network": network,
        "batch_size": config.training.batch_size,
        "optimizer": config.training.optimizer,
    }


def _file(key: Mapping[str, object]) -> Path:
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "precision" / f"{digest[:16]}.json"


def _images_per_second(precision: str, config: ExperimentConfig, data: FashionMNIST, calls: int, steps: int) -> float:
    """Return the speed of the fastest one of these calls, each of which does at most this many steps."""
    seeds.prepare(config.seed, precision)
    model = layers.accelerate(models.build(config.model))
    transfer.freeze(model, config.model.frozen)
    short = _shortened(config, len(data.train.images), steps)
    images = short.training.steps_per_execution * short.training.batch_size  # per call
    chosen = np.arange(calls * images) % len(data.train.images)  # repeats the images if there are too few
    train = Split(data.train.name, data.train.images[chosen], data.train.labels[chosen])
    empty = Split(data.validation.name, train.images[:0], train.labels[:0])
    clock = _Clock()
    fitting.fit(model, short, FashionMNIST(train, empty, data.test, data.source), [clock])
    return images / float(np.diff(clock.times).min())


def _shortened(config: ExperimentConfig, images: int, most: int) -> ExperimentConfig:
    """Return the experiment with one epoch of calls that are no larger than its own, and have at most `most` steps."""
    whole, changes = config.training, config.augmentation
    size = min(whole.batch_size, IMAGES)
    steps = images * (1 + changes.copies) // whole.batch_size
    # at this learning rate no network diverges; the rate does not change how fast a step is
    fields = {"epochs": 1, "schedule": "constant", "learning_rate": 1e-7, "batch_size": size}
    fields["steps_per_execution"] = max(1, min(whole.steps_per_execution, most, steps, IMAGES // size))
    if changes.copies:  # they are made before the first step; a step then only mixes images
        changes = AugmentationConfig(mixup=changes.mixup, cutmix=changes.cutmix)
    return config.model_copy(update={"training": whole.model_copy(update=fields), "augmentation": changes})


@dataclass
class _Clock(FitCallback):
    times: list[float] = field(default_factory=list)

    def on_step(self, epoch: int, step: int, steps: int) -> None:
        self.times.append(time.perf_counter())
