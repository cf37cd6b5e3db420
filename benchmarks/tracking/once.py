"""Time one way of tracking short runs, and print the times as JSON. `benchmarks.tracking.cost` calls this script.

It is run by its path in a process of its own, so that PYTHONPATH decides which version of the package is measured.
Usage: python benchmarks/tracking/once.py WAY REPEATS, with the store in MLFLOW_TRACKING_URI.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fmnist_exp.config.schema import ExperimentConfig
    from fmnist_exp.data.dataset import FashionMNIST

EPOCHS = 20
EPOCH_SECONDS = 0.05  # that the fit itself takes, so that a thread of the tracker can work meanwhile
METRICS = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "epoch_seconds")
FILES = {"curves.png": 40_000, "report.json": 6_000, "summary.txt": 2_000}  # bytes of the artifacts at the end

Times = tuple[list[float], float]  # milliseconds that the fit waited in each epoch, and for the rest of the run


def main() -> None:
    """Time the runs of one way after one that does not count; print milliseconds of epochs and runs, and CPU time."""
    way, repeats = {"client": client, "autolog": autolog, "ours": ours}[sys.argv[1]], int(sys.argv[2])
    call = way()
    call()
    epochs: list[float] = []
    runs, cpu = [], []
    for _ in range(repeats):
        before = time.process_time()
        waits, rest = call()
        cpu.append(1000 * (time.process_time() - before))
        epochs += waits
        runs.append(rest)
    print(json.dumps({"epochs": epochs, "runs": runs, "cpu": cpu}))


def experiment() -> tuple[ExperimentConfig, FashionMNIST]:
    """Return an experiment and the images that its runs name as their inputs."""
    from fmnist_exp.config import files
    from fmnist_exp.data import dataset

    config = files.load("mlp", {})
    return config, dataset.load(config.data, config.seed)


def ours() -> Callable[[], Times]:
    """Return a function that makes a run as the platform does, until the store has all of it."""
    from fmnist_exp.tracking import run as runs
    from fmnist_exp.tracking import store
    from fmnist_exp.tracking.names import Tag

    config, data = experiment()
    connected = store.connect()

    def call() -> Times:
        clock = Clock()
        run = runs.start_run(connected, "train", "cost", "cost")
        with runs.closing(run):
            runs.log_start(run, config, data)
            clock.pause()
            for step in range(1, EPOCHS + 1):
                clock.epoch(lambda step=step: run.log_metrics(metrics(step), step))
            clock.go_on()
            with run.artifacts() as folder:
                write_files(folder)
            run.set_tags({Tag.NOTE: "a run"})
        drain()
        return clock.times()

    return call


def drain() -> None:
    """Wait until the store has everything. Versions of the package without a spool wrote to the store at once."""
    try:
        from fmnist_exp.tracking.spool.process import sender
    except ModuleNotFoundError:
        return
    assert not sender().drain(), "not everything was sent"


def client() -> Callable[[], Times]:
    """Return a function that logs the same with MLflow's client and nothing else."""
    from mlflow import MlflowClient, entities

    from fmnist_exp.config.fields import flatten

    config, data = experiment()
    connected = MlflowClient()
    params = [entities.Param(key, str(value)) for key, value in flatten(config).items()]
    splits = {"training": data.train, "validation": data.validation, "gate": data.gate}

    def call() -> Times:
        clock = Clock()
        run_id = connected.create_run("0", tags={"kind": "cost"}, run_name="cost").info.run_id
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "experiment.yaml").write_text(config.to_yaml(), encoding="utf-8")
            connected.log_artifacts(run_id, folder)
        connected.log_batch(run_id, params=params)
        inputs = []
        for context, split in splits.items():
            dataset = entities.Dataset(split.name, split.digest, "local", "{}", "{}", "{}")
            inputs.append(entities.DatasetInput(dataset, [entities.InputTag("mlflow.data.context", context)]))
        connected.log_inputs(run_id, inputs)
        clock.pause()
        for step in range(1, EPOCHS + 1):

            def log(step: int = step) -> None:
                now = int(time.time() * 1000)
                batch = [entities.Metric(key, value, now, step) for key, value in metrics(step).items()]
                connected.log_batch(run_id, metrics=batch)

            clock.epoch(log)
        clock.go_on()
        with tempfile.TemporaryDirectory() as folder:
            write_files(Path(folder))
            connected.log_artifacts(run_id, folder)
        connected.log_batch(run_id, tags=[entities.RunTag("mlflow.note.content", "a run")])
        connected.set_terminated(run_id)
        return clock.times()

    return call


def autolog() -> Callable[[], Times]:
    """Return a function that fits a network with autologging, without its model, which alone takes seconds.

    An epoch is the time between the end of our callback, which is the first, and the beginning of the next epoch. The
    rest is the time of the whole fit without its epochs, less the same of a fit without autologging.
    """
    import keras
    import mlflow
    import numpy as np

    random = np.random.default_rng(0)
    images, labels = random.random((64, 8), np.float32), random.integers(0, 2, 64)

    class Gaps(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.epochs: list[float] = []
            self.busy = 0.0  # seconds of the epochs themselves
            self._end = 0.0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._begin = time.perf_counter()
            if epoch:
                self.epochs.append(1000 * (self._begin - self._end))

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            time.sleep(EPOCH_SECONDS)
            self._end = time.perf_counter()
            self.busy += self._end - self._begin

    def fit() -> Times:
        gaps = Gaps()
        model = keras.Sequential([keras.layers.Dense(2)])
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        begin = time.perf_counter()
        model.fit(images, labels, epochs=EPOCHS, batch_size=64, verbose=0, callbacks=[gaps])
        whole = time.perf_counter() - begin
        return gaps.epochs, 1000 * (whole - gaps.busy) - sum(gaps.epochs)

    fit()
    without = min(fit()[1] for _ in range(3))
    mlflow.keras.autolog(silent=True, log_models=False)

    def call() -> Times:
        waits, rest = fit()  # outside of a run, autologging makes and ends one
        mlflow.flush_async_logging()
        return waits, rest - without

    return call


class Clock:
    """Adds up what tracking takes of a run's time, and notes the epochs one by one."""

    def __init__(self) -> None:
        self._epochs: list[float] = []
        self._rest = 0.0
        self._since = time.perf_counter()

    def pause(self) -> None:
        """Stop adding to the rest of the run."""
        self._rest += time.perf_counter() - self._since

    def go_on(self) -> None:
        """Start adding again."""
        self._since = time.perf_counter()

    def epoch(self, log: Callable[[], None]) -> None:
        """Spend an epoch's time, and measure how long its end takes."""
        time.sleep(EPOCH_SECONDS)
        begin = time.perf_counter()
        log()
        self._epochs.append(1000 * (time.perf_counter() - begin))

    def times(self) -> Times:
        """Return the times of the epochs and of the rest of the run, which ends now, in milliseconds."""
        self.pause()
        return self._epochs, 1000 * self._rest


def metrics(step: int) -> dict[str, float]:
    """Return the metrics of an epoch."""
    return {key: 1 / (step + place) for place, key in enumerate(METRICS)}


def write_files(folder: Path) -> None:
    """Write the artifacts of a run's end."""
    for name, size in FILES.items():
        (folder / name).write_bytes(bytes(size))


if __name__ == "__main__":
    main()
