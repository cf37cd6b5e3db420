"""What tracking costs: a finished run and an epoch's metrics, here and with plain `mlflow.keras.autolog`, in one run.

The same network is fitted by the same `model.fit` on the same images; beside each stands the fit without tracking.
Usage: python benchmarks/tracking_overhead.py [--repeats 5]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

EPOCHS = 5
TRAINING_IMAGES = 6000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each kind; the first one beside is not counted")
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        rows = [(name, *measure(call, repeats)) for name, call in contestants()]
    table = Table(title=f"Tracking a run of {EPOCHS} epochs, n = {repeats}: median (lowest … highest)")
    for column in ("", "an epoch's metrics, ms", "a finished run, s"):
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)


def measure(call: Callable[[], tuple[float, float]], repeats: int) -> tuple[str, str]:
    call()  # the first run makes the database and warms the libraries
    epochs, finished = zip(*(call() for _ in range(repeats)), strict=True)
    return spread([1000 * seconds for seconds in epochs], 1), spread(finished, 2)


def spread(values: list[float] | tuple[float, ...], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} … {max(values):.{digits}f})"


def contestants() -> list[tuple[str, Callable[[], tuple[float, float]]]]:
    import dataclasses

    from fmnist_exp import connection, experiment, experiment_files, runtime, tracking, training
    from fmnist_exp import data as fashion

    config = experiment_files.load("tune_cnn", {"training.epochs": EPOCHS, "model.widths": "[16, 32, 64]"})
    whole = fashion.load(config.data, config.seed)
    split = whole.train
    part = dataclasses.replace(split, images=split.images[:TRAINING_IMAGES], labels=split.labels[:TRAINING_IMAGES])
    data = dataclasses.replace(whole, train=part)
    client = connection.connect()

    class Watch(training.Listener):
        """Measures each epoch's writing, and when the fit ended."""

        def __init__(self, run: tracking.Run) -> None:
            self.log = tracking.EpochLog(run)
            self.seconds: list[float] = []

        def on_epoch(self, epoch: training.Epoch) -> bool:
            start = time.perf_counter()
            self.log.on_epoch(epoch)
            self.seconds.append(time.perf_counter() - start)
            return False

    def ours() -> tuple[float, float]:
        with tracking.closing(tracking.start_run(client, "train", "ours", "benchmark")) as run:
            watch = Watch(run)
            ended: list[float] = []

            def fit(model, config, data, listeners):  # type: ignore[no-untyped-def]
                result = training.fit(model, config, data, [watch])
                ended.append(time.perf_counter())
                return result

            experiment.run_experiment(config, data, run, score_test=False, fit=fit)
        return statistics.mean(watch.seconds), time.perf_counter() - ended[0]

    def plain(autolog: bool) -> tuple[float, float]:
        """A notebook's way: compile, fit, autolog with its defaults. Without it: what the fit alone takes."""
        import mlflow

        from fmnist_exp import models

        runtime.prepare(config.seed, "float32")
        mlflow.keras.autolog(disable=not autolog, silent=True)
        model = models.build(config.model)
        model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        validation = (data.validation.images, data.validation.labels)
        clock = _clock()
        with mlflow.start_run():
            model.fit(part.images, part.labels, batch_size=128, epochs=EPOCHS, verbose=0, validation_data=validation,
                      callbacks=[clock])  # fmt: skip
            finished = time.perf_counter() - clock.ended
        mlflow.keras.autolog(disable=True)
        return statistics.median(clock.gaps), finished

    without = plain(False)[0]

    def autolog() -> tuple[float, float]:
        gap, finished = plain(True)
        return gap - without, finished

    return [("fmnist_exp", ours), ("mlflow.keras.autolog", autolog)]


def _clock():  # type: ignore[no-untyped-def]
    from keras.callbacks import Callback

    class Clock(Callback):
        """Whole epochs, first one left out, and the end of the last one."""

        def on_train_begin(self, logs=None):  # type: ignore[no-untyped-def]
            self.gaps: list[float] = []
            self.last = 0.0

        def on_epoch_begin(self, epoch, logs=None):  # type: ignore[no-untyped-def]
            now = time.perf_counter()
            if epoch > 1:
                self.gaps.append(now - self.last)
            self.last = now

        def on_epoch_end(self, epoch, logs=None):  # type: ignore[no-untyped-def]
            self.ended = time.perf_counter()

    return Clock()


if __name__ == "__main__":
    main()
