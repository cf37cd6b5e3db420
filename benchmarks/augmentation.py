"""What augmentation costs: each change alone and all at once, beside a training step of a simple CNN, in one run.

The network has 32 and 64 filters of 3x3, each with pooling, and a dense layer of 64. Its step is the median over
epochs of `model.fit` with the platform's batches, nothing augmented. The last table is the whole: the same fit with
everything on, epochs of both kinds in turn. Keras asks for a batch while the step before it runs, on the same cores.
Usage: python benchmarks/augmentation.py [--steps 100] [--repeats 7]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="of an epoch of the fit")
    parser.add_argument("--repeats", type=int, default=7, help="epochs of each kind; the first two beside do not count")
    arguments = parser.parse_args()
    from fmnist_exp.backend import seeds
    from fmnist_exp.config.schema import DataConfig
    from fmnist_exp.data import dataset

    seeds.prepare(0, "float32")
    split = dataset.load(DataConfig(), 0).train
    for size in SIZES:
        off, on = fits(split, size, arguments.steps, arguments.repeats)
        step = statistics.median(off)
        report(size, step, [(name, change(split, size, fields)) for name, fields in alternatives()], off, on)


def alternatives() -> list[tuple[str, dict[str, Any]]]:
    images = {k: v for k, v in EVERYTHING.items() if k not in ("mixup", "cutmix")}
    return [*ON.items(), ("all of an image", images), ("all, with mixup or cutmix", EVERYTHING)]


def change(split: Any, size: int, fields: dict[str, Any]) -> float:
    """Median seconds for a batch, over as many calls as fit into a second or so."""
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
    """Seconds per step of epochs with nothing on and with everything on, in turn."""
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
            measured.append(timed(lambda feed=feed: model.fit(feed, verbose=0, shuffle=False)) / len(feed))
    return seconds[0][2:], seconds[1][2:]


def simple_cnn() -> Any:
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


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def report(size: int, step: float, costs: list[tuple[str, float]], off: list[float], on: list[float]) -> None:
    console = Console(width=100)
    table = Table(title=f"Batches of {size}; a step of the simple CNN takes {1000 * step:.1f} ms")
    for column in ("", "µs per image", "ms per batch", "of a step"):
        table.add_column(column, justify="right" if column else "left")
    for name, seconds in costs:
        table.add_row(name, f"{1e6 * seconds / size:.1f}", f"{1000 * seconds:.2f}", f"{seconds / step:.1%}")
    console.print(table)
    ratio = statistics.median(b / a for a, b in zip(off, on, strict=True))
    spread = [f"{1000 * statistics.median(v):.2f} ({1000 * min(v):.2f} … {1000 * max(v):.2f})" for v in (off, on)]
    console.print(
        f"Steps of a fit, n = {len(off)} epochs: {spread[0]} ms with nothing on, {spread[1]} ms with all on: "
        f"{ratio - 1:+.1%}\n"
    )


if __name__ == "__main__":
    main()
