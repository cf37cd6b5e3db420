"""Measure the time of tracking an epoch and of finishing a run, here and with `mlflow.keras.autolog`.

Both fit the same network on the same images. For the platform, an epoch is the time of writing its metrics; finishing
is the time from the scoring of the validation images (which autolog does not do) to the end of the run, with figures,
report, ONNX export and model. For autolog, an epoch is the time in its callback (a thread writes meanwhile; its time is
not included), and finishing is the time from the end of the last epoch to the end of the run.
Usage: python -m benchmarks.tracking_overhead [--repeats 5]
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest import mock

from rich.console import Console
from rich.table import Table

from benchmarks import arguments

if TYPE_CHECKING:
    from fmnist_exp.config.schema import ExperimentConfig
    from fmnist_exp.data.dataset import FashionMNIST

EPOCHS = 5
TRAINING_IMAGES = 6000


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return arguments.parser(
        __doc__,
        repeats=(5, "runs of each kind, after one that does not count"),
    )


def main() -> None:
    """Measure both ways and print the table."""
    repeats = parser().parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        rows = [(name, *measure(call, repeats)) for name, call in contestants()]
    table = Table(title=f"Tracking a run of {EPOCHS} epochs, n = {repeats}: median (lowest … highest)")
    for column in ("", "writing an epoch, ms", "finishing a run, s"):
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)


def measure(call: Callable[[], tuple[float, float]], repeats: int) -> tuple[str, str]:
    """Return median, lowest and highest time of an epoch (ms) and of finishing (s) as text."""
    call()  # the first run creates the database and warms up the libraries
    epochs, finished = zip(*(call() for _ in range(repeats)), strict=True)
    return extremes([1000 * seconds for seconds in epochs], 1), extremes(finished, 2)


def extremes(values: list[float] | tuple[float, ...], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} … {max(values):.{digits}f})"


def contestants() -> list[tuple[str, Callable[[], tuple[float, float]]]]:
    """Return the two ways of tracking: a name, and a function that makes a run and returns its two times."""
    config, data = experiment()
    return [("fmnist_exp", partial(ours, config, data)), ("mlflow.keras.autolog", partial(autolog, config, data))]


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


def ours(config: ExperimentConfig, data: FashionMNIST) -> tuple[float, float]:
    """Run the experiment on the platform."""
    from fmnist_exp.experiment import artifacts, checkpoints
    from fmnist_exp.experiment import run as experiment_run
    from fmnist_exp.tracking import run as runs
    from fmnist_exp.tracking import store

    run = runs.start_run(store.connect(), "train", "ours", "benchmark")
    with (
        runs.closing(run),
        timed(checkpoints.EpochLog, "on_epoch") as epochs,
        timed(artifacts, "write_training") as scored,  # is called when the validation images have been scored
    ):
        experiment_run.run_experiment(config, data, run, score_test=False)
    return sum(call.seconds for call in epochs) / EPOCHS, time.perf_counter() - scored[0].start


def autolog(config: ExperimentConfig, data: FashionMNIST) -> tuple[float, float]:
    """Compile and fit as in a notebook, with the defaults of autolog."""
    import mlflow
    from mlflow.keras import MlflowCallback

    from fmnist_exp import models
    from fmnist_exp.backend import seeds

    seeds.prepare(config.seed, "float32")
    mlflow.keras.autolog(silent=True)
    model = models.build(config.model)
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    validation = (data.validation.images, data.validation.labels)
    with mlflow.start_run(), timed(MlflowCallback, "on_epoch_end", "on_test_end") as epochs:
        fit = {"batch_size": 128, "epochs": EPOCHS, "verbose": 0, "validation_data": validation}
        ended = _end_of_last_epoch()
        model.fit(data.train.images, data.train.labels, **fit, callbacks=[ended])
        finished = time.perf_counter() - ended.time
    return sum(call.seconds for call in epochs) / EPOCHS, finished


class Call(NamedTuple):
    """A call: when it started, on the clock of time.perf_counter, and how long it took, in seconds."""

    start: float
    seconds: float


@contextlib.contextmanager
def timed(owner: object, *names: str) -> Iterator[list[Call]]:
    """Yield a list that receives every call of these functions of a class or module until the block ends."""
    calls: list[Call] = []

    def with_clock(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                calls.append(Call(start, time.perf_counter() - start))

        return call

    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(owner, name, with_clock(getattr(owner, name))))
        yield calls


def _end_of_last_epoch() -> Any:
    from keras.callbacks import Callback

    class End(Callback):
        time = 0.0

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.time = time.perf_counter()

    return End()


if __name__ == "__main__":
    main()
