"""Measure the time of augmentation, each change alone and all together, relative to a training step of a simple CNN.

The network has two convolutions (32 and 64 filters of 3x3), each with pooling, and a dense layer of 64 units. The time
of its step is the median over epochs of `model.fit` with the platform's batches and without augmentation. The last line
compares it with the same fit with all changes; epochs of both kinds alternate. Keras asks for a batch while the
previous step runs on the same cores.
Usage: python -m benchmarks.augmentation [--steps 100] [--repeats 7]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import arguments

SIZES = (32, 128)
ON = {
    "horizontal_flip": {"horizontal_flip": True},
    "rotation, shear, zoom": {"rotation": 15, "shear": 10, "zoom": 0.1},
    "shift": {"shift": 2},
    "erasing": {"erasing": 0.5},
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
}
EVERYTHING = {name: value for fields in ON.values() for name, value in fields.items()}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return arguments.parser(
        __doc__,
        steps=(100, "training steps per epoch"),
        repeats=(7, "epochs of each kind, after two that do not count"),
    )


def main() -> None:
    """Measure batches of each size and print the tables."""
    given = parser().parse_args()
    from fmnist_exp.backend import seeds
    from fmnist_exp.config.schema import DataConfig
    from fmnist_exp.data import dataset

    seeds.prepare(0, "float32")
    split = dataset.load(DataConfig(), 0).train
    for size in SIZES:
        off, on = fits(split, size, given.steps, given.repeats)
        step = statistics.median(off)
        report(size, step, [(name, change(split, size, fields)) for name, fields in alternatives()], off, on)


def alternatives() -> list[tuple[str, dict[str, Any]]]:
    """Return the measured combinations of fields with their names."""
    images = {k: v for k, v in EVERYTHING.items() if k not in ("mixup", "cutmix")}
    return [*ON.items(), ("all changes of one image", images), ("all, with mixup or cutmix", EVERYTHING)]


def change(split: Any, size: int, fields: dict[str, Any]) -> float:
    """Return the median seconds for a batch, over 500 calls."""
    from fmnist_exp.config.schema import AugmentationConfig
    from fmnist_exp.data.augment import augment, mix

    config, random = AugmentationConfig(**fields), np.random.default_rng(0)
    one_hot = np.eye(10, dtype=np.float32)[split.labels]
    seconds = []
    for _ in range(500):
        chosen = random.integers(0, len(split.images), size)
        images, labels = split.images[chosen], one_hot[chosen]
        start = time.perf_counter()
        mix(augment(images, config, random), labels, config, random)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def fits(split: Any, size: int, steps: int, repeats: int) -> tuple[list[float], list[float]]:
    """Return the seconds per step of alternating epochs, without augmentation and with all changes."""
    import keras

    from fmnist_exp.config.schema import AugmentationConfig, ExperimentConfig, TrainingConfig
    from fmnist_exp.data.batches import Batches
    from fmnist_exp.data.dataset import Split

    part = Split(split.name, split.images[: steps * size], split.labels[: steps * size])
    training = TrainingConfig(batch_size=size, labels="one_hot")
    kinds = [
        Batches(ExperimentConfig(training=training, augmentation=AugmentationConfig(**fields)), part)
        for fields in ({}, EVERYTHING)
    ]
    model = simple_cnn()
    model.compile(keras.optimizers.Adam(), "categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats + 2):
        for feed, measured in zip(kinds, seconds, strict=True):
            measured.append(seconds_of(lambda feed=feed: model.fit(feed, verbose=0, shuffle=False)) / len(feed))
    return seconds[0][2:], seconds[1][2:]


def simple_cnn() -> Any:
    """Return the network, which maps images (B, 28, 28) to probabilities (B, 10)."""
    from keras import Sequential, layers

    return Sequential(
        [
            layers.Input((28, 28)),
            layers.Rescaling(1 / 255),
            layers.Reshape((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )


def seconds_of(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def report(size: int, step: float, costs: list[tuple[str, float]], off: list[float], on: list[float]) -> None:
    console = Console(width=100)
    table = Table(title=f"Batches of {size}; a step of the simple CNN takes {1000 * step:.1f} ms")
    for column in ("", "µs per image", "ms per batch", "relative to a step"):
        table.add_column(column, justify="right" if column else "left")
    for name, seconds in costs:
        table.add_row(name, f"{1e6 * seconds / size:.1f}", f"{1000 * seconds:.2f}", f"{seconds / step:.1%}")
    console.print(table)
    ratio = statistics.median(b / a for a, b in zip(off, on, strict=True))
    spread = [f"{1000 * statistics.median(v):.2f} ({1000 * min(v):.2f} … {1000 * max(v):.2f})" for v in (off, on)]
    console.print(
        f"Steps of a fit, n = {len(off)} epochs: {spread[0]} ms without augmentation, {spread[1]} ms with all changes: "
        f"{ratio - 1:+.1%}\n"
    )


if __name__ == "__main__":
    main()
