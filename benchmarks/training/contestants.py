"""One contestant of benchmarks.training.speed, in a process of its own that measures when it is asked to.

The process speaks JSON lines. It describes itself as soon as it is warm, then reads a number of seconds from its
standard input, measures for that long, writes the result, and waits for the next number. While it waits, it stands
still inside its fit, so that contestants can take turns.
Usage (by benchmarks.training.speed): python -m benchmarks.training.contestants NAME STARTED
"""

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SETTLING = 16  # steps after a pause that do not count: they use up the batches that were made during the pause
FOREVER = 10_000  # epochs
MATRIX = 2048  # rows and columns
PRODUCTS = 4  # matrix products per call


@dataclass(frozen=True)
class Contestant:
    """Something whose speed is measured: a matrix product, a plain Keras recipe, an experiment's fit."""

    label: str
    start: Callable[..., None]
    arguments: tuple[Any, ...]


class Stopwatch:
    """Counts time and work during a turn; it is called after every call into the compiled graph."""

    def __init__(self, started: float, size: int, notes: Callable[[], dict[str, Any]]) -> None:
        """Take the start of the process, the images (or operations) per step, and what describes the contestant."""
        self.started, self.size, self.notes = started, size, notes
        self.turn = self.seconds = 0.0
        self.work = 0
        self.epoch = self.step = 0
        self.settling = SETTLING

    def record(self, epoch: int, step: int) -> None:
        """Record that `step` steps of the epoch are done. The time between epochs (validation) is not counted."""
        now = time.perf_counter()
        if epoch != self.epoch:
            self.epoch, self.settling = epoch, SETTLING - step
        elif self.settling <= 0:
            self.seconds += now - self.before
            self.work += (step - self.step) * self.size
        else:
            self.settling -= step - self.step
        self.step = step
        if self.settling <= 0 and self.seconds >= self.turn:
            self._end_turn()
        self.before = time.perf_counter()

    def _end_turn(self) -> None:
        if self.turn:
            send({"work": self.work, "seconds": self.seconds, "mebibytes": peak_memory()})
        else:
            send({"ready": time.perf_counter() - self.started, **self.notes()})
        line = sys.stdin.readline()
        if not line.strip():
            os._exit(0)  # the fit would otherwise run for ever
        self.turn, self.seconds, self.work, self.settling = float(line), 0.0, 0, SETTLING


def matrices(started: float, precision: str) -> None:
    """Multiply square matrices; the work is counted in floating-point operations."""
    from fmnist_exp.backend import setup

    setup.start()
    import tensorflow as tf

    a = tf.cast(tf.random.normal((MATRIX, MATRIX)), precision)
    product = tf.function(lambda x: [tf.matmul(x, a) for x in tf.unstack(x)])
    stack = tf.cast(tf.random.normal((PRODUCTS, MATRIX, MATRIX)), precision)
    watch = Stopwatch(started, 2 * MATRIX**3, lambda: {"flop": 1, "batch": 0})
    for step in range(0, sys.maxsize, PRODUCTS):
        watch.record(0, step)
        product(stack)


def recipe(started: float, name: str, batch: int) -> None:
    """Fit a recipe of benchmarks/peers from arrays, with Keras' `fit`."""
    from fmnist_exp.backend import setup

    setup.start()
    module = importlib.import_module(f"benchmarks.peers.{name}")
    model = module.build()
    split = images(0)
    stock_fit(started, model, module.inputs(split.images), split.labels, batch)


def stock(started: float, name: str, batch: int) -> None:
    """Fit an experiment's network with its optimizer in float32: stock layers, Keras' `fit`, nothing augmented."""
    from fmnist_exp import models
    from fmnist_exp.backend import setup
    from fmnist_exp.config import files
    from fmnist_exp.data import batches
    from fmnist_exp.training import optimizers

    settings = {"training.precision": "float32", "training.epochs": 1000, "training.learning_rate": 1e-5}
    config = files.load(name, {**settings, "training.batch_size": batch})
    setup.start()
    model = models.build(config.model)
    split = images(config.seed)
    labels = batches.targets(split, config.training)
    loss = "categorical_crossentropy" if config.training.labels == "one_hot" else "sparse_categorical_crossentropy"
    optimizer = optimizers.build(config.training, len(split.images) // batch)
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    stock_fit(started, model, split.images, labels, batch)


def stock_fit(started: float, model: Any, x: Any, y: Any, batch: int) -> None:
    """Fit with Keras' defaults, but without its progress bar."""
    from keras.callbacks import Callback

    watch = Stopwatch(started, batch, lambda: describe(model, batch))

    class Recorder(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch = epoch

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            watch.record(self.epoch, batch + 1)

    model.fit(x, y, batch_size=batch, epochs=FOREVER, callbacks=[Recorder()], verbose=0)


def platform(started: float, name: str, batch: int | None, precision: str = "auto") -> None:
    """Fit an experiment as this platform does, with augmentation and callbacks."""
    from fmnist_exp import models
    from fmnist_exp.backend import layers, seeds
    from fmnist_exp.config import files
    from fmnist_exp.data import dataset
    from fmnist_exp.experiment import resolve
    from fmnist_exp.training import fit as fitting
    from fmnist_exp.training.events import FitCallback

    size = {"training.batch_size": batch} if batch else {}
    own = {**size, "training.precision": precision}
    config = files.load(name, {**own, "training.epochs": 1000, "training.learning_rate": 1e-5})
    loaded = dataset.load(config.data, config.seed)
    config, _ = resolve.choose_precision(config, loaded)
    seeds.prepare(config.seed, config.training.precision)
    model = layers.accelerate(models.build(config.model))
    watch = Stopwatch(started, config.training.batch_size, lambda: describe(model, config.training.batch_size))

    class Recorder(FitCallback):
        def on_step(self, epoch: int, step: int, steps: int) -> None:
            watch.record(epoch, step)

    fitting.fit(model, config, loaded, [Recorder()])


def images(seed: int) -> Any:
    """Return the training images with their labels."""
    from fmnist_exp.config.schema import DataConfig
    from fmnist_exp.data import dataset

    return dataset.load(DataConfig(), seed).train


def describe(model: Any, batch: int) -> dict[str, Any]:
    """Return the floating-point operations per image, the batch size and the parameters."""
    from benchmarks.cost import training_flop

    return {"flop": training_flop(model), "batch": batch, "parameters": model.count_params()}


def peak_memory() -> float:
    """Return the highest memory use of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def send(message: dict[str, Any]) -> None:
    """Write a message to the process that measures."""
    print(json.dumps(message), flush=True)


CONTESTANTS = {
    "float32": Contestant("2048² matrix product, float32", matrices, ("float32",)),
    "bfloat16": Contestant("2048² matrix product, bfloat16", matrices, ("bfloat16",)),
    "cnn": Contestant("cnn, batch 256", platform, ("cnn", 256)),
    "cnn_stock": Contestant("cnn, float32, stock layers, fit's defaults", stock, ("cnn", 256)),
    "cnn_float32": Contestant("cnn, float32", platform, ("cnn", 256, "float32")),
    "cnn_fast": Contestant("cnn_fast", platform, ("cnn_fast", None)),
    "cnn_fast_stock": Contestant("cnn_fast, float32, stock layers, fit's defaults", stock, ("cnn_fast", 256)),
    "cnn_fast_float32": Contestant("cnn_fast, float32", platform, ("cnn_fast", 256, "float32")),
    "cnn_fast_bfloat16": Contestant("cnn_fast, bfloat16", platform, ("cnn_fast", 256, "bfloat16")),
    "deep_cnn": Contestant("deep_cnn", platform, ("deep_cnn", None)),
    "deep_cnn_keras": Contestant("deep_cnn in plain Keras", recipe, ("deep_cnn_keras", 32)),
    "mlp": Contestant("mlp", platform, ("mlp", None)),
    "funnel_mlp": Contestant("funnel_mlp", platform, ("funnel_mlp", None)),
    "funnel_mlp_keras": Contestant("funnel_mlp in plain Keras", recipe, ("funnel_mlp_keras", 32)),
}

if __name__ == "__main__":
    contestant = CONTESTANTS[sys.argv[1]]
    contestant.start(float(sys.argv[2]), *contestant.arguments)
