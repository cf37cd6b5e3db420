"""Measure the time of finishing a run, here and with `mlflow.keras.autolog`, from its last epoch to its end.

Both fit the same network on the same images. For the platform the time includes the scoring of the validation images,
figures, report, ONNX export and model, until the store has everything; autologging scores and draws nothing.
Usage: python -m benchmarks.tracking.finishing [--repeats 5]
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks import arguments

if TYPE_CHECKING:
    from fmnist_exp.config.schema import ExperimentConfig
    from fmnist_exp.data.dataset import FashionMNIST

EPOCHS = 5
TRAINING_IMAGES = 6000


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return arguments.parser(__doc__, repeats=(5, "runs of each kind, after one that does not count"))


def main() -> None:
    """Measure both ways and print the table."""
    repeats = parser().parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        config, data = experiment()
        rows = [
            ("fmnist_exp", measure(lambda: ours(config, data), repeats)),
            ("mlflow.keras.autolog", measure(lambda: autolog(config, data), repeats)),
        ]
    print(f"Finishing a run of {EPOCHS} epochs, s, n = {repeats}: median (lowest … highest)")
    for name, text in rows:
        print(f"{name:<24}{text}")


def measure(call: Callable[[], float], repeats: int) -> str:
    """Return median, lowest and highest time of the call, in seconds, as text."""
    call()  # the first run creates the database and warms up the libraries
    values = [call() for _ in range(repeats)]
    return f"{statistics.median(values):.2f} ({min(values):.2f} … {max(values):.2f})"


def experiment() -> tuple[ExperimentConfig, FashionMNIST]:
    """Return the experiment and a part of the training images."""
    from fmnist_exp.config import files
    from fmnist_exp.data import dataset
    from fmnist_exp.experiment import resolve

    config = files.load("tune_cnn", {"training.epochs": EPOCHS, "model.widths": "[16, 32, 64]"})
    whole = dataset.load(config.data, config.seed)
    split = whole.train
    part = dataclasses.replace(split, images=split.images[:TRAINING_IMAGES], labels=split.labels[:TRAINING_IMAGES])
    data = dataclasses.replace(whole, train=part)
    return resolve.choose_precision(config, data)[0], data


def ours(config: ExperimentConfig, data: FashionMNIST) -> float:
    """Run the experiment on the platform."""
    from benchmarks.tracking.once import drain
    from fmnist_exp.experiment import run as experiment_run
    from fmnist_exp.tracking import run as runs
    from fmnist_exp.tracking import store
    from fmnist_exp.training.events import Epoch, FitCallback

    class End(FitCallback):
        def on_epoch(self, epoch: Epoch) -> bool:
            self.time = time.perf_counter()
            return False

    end = End()
    with runs.closing(runs.start_run(store.connect(), "train", "ours", "benchmark")) as run:
        experiment_run.run_experiment(config, data, run, [end], score_test=False)
    drain()
    return time.perf_counter() - end.time


def autolog(config: ExperimentConfig, data: FashionMNIST) -> float:
    """Compile and fit as in a notebook, with the defaults of autolog."""
    import keras
    import mlflow

    from fmnist_exp import models
    from fmnist_exp.backend import seeds

    class End(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.time = time.perf_counter()

    seeds.prepare(config.seed, "float32")
    mlflow.keras.autolog(silent=True)
    model = models.build(config.model)
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    end, validation = End(), (data.validation.images, data.validation.labels)
    with mlflow.start_run():
        fit = {"batch_size": 128, "epochs": EPOCHS, "verbose": 0, "validation_data": validation}
        model.fit(data.train.images, data.train.labels, **fit, callbacks=[end])
    return time.perf_counter() - end.time


if __name__ == "__main__":
    main()
