"""One contestant of benchmarks/train_speed.py in a process of its own, which measures when it is told to.

Speaks JSON lines: says what it is once it is warm, then reads a number of seconds from its standard input, measures for
as long, answers, and waits for the next. In between it stands still within its fit, so that contestants can take turns.
Usage (by train_speed.py): python benchmarks/contestants.py NAME BEGAN
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SETTLING = 16  # steps after a pause that do not count: batches that were made meanwhile are used up in them
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
    """Hears of every call into the compiled graph; counts time and work while a turn lasts."""

    def __init__(self, began: float, size: int, notes: Callable[[], dict[str, Any]]) -> None:
        self.began, self.size, self.notes = began, size, notes
        self.turn = self.seconds = 0.0
        self.work = 0
        self.epoch = self.step = 0
        self.settling = SETTLING

    def hear(self, epoch: int, step: int) -> None:
        """`step` steps of the epoch are done. What lies between epochs, as validation, is not counted."""
        now = time.perf_counter()
        if epoch != self.epoch:
            self.epoch, self.settling = epoch, SETTLING - step
        elif self.settling <= 0:
            self.seconds += now - self.then
            self.work += (step - self.step) * self.size
        else:
            self.settling -= step - self.step
        self.step = step
        if self.settling <= 0 and self.seconds >= self.turn:
            self._take_turns()
        self.then = time.perf_counter()

    def _take_turns(self) -> None:
        if self.turn:
            say({"work": self.work, "seconds": self.seconds, "mebibytes": peak_memory()})
        else:
            say({"ready": time.perf_counter() - self.began, **self.notes()})
        line = sys.stdin.readline()
        if not line.strip():
            os._exit(0)  # the fit has no other end
        self.turn, self.seconds, self.work, self.settling = float(line), 0.0, 0, SETTLING


def matrices(began: float, precision: str) -> None:
    """Products of two square matrices; work in floating-point operations."""
    from fmnist_exp.backend import setup

    setup.start_keras()
    import tensorflow as tf

    a = tf.cast(tf.random.normal((MATRIX, MATRIX)), precision)
    product = tf.function(lambda x: [tf.matmul(x, a) for x in tf.unstack(x)])
    stack = tf.cast(tf.random.normal((PRODUCTS, MATRIX, MATRIX)), precision)
    watch = Stopwatch(began, 2 * MATRIX**3, lambda: {"flop": 1, "batch": 0})
    for step in range(0, sys.maxsize, PRODUCTS):
        watch.hear(0, step)
        product(stack)


def recipe(began: float, name: str, batch: int) -> None:
    """A recipe of peers/, fed by Keras' `fit` from arrays."""
    from fmnist_exp.backend import setup

    setup.start_keras()
    module = __import__(f"peers.{name}", fromlist=["build"])
    model = module.build()
    split = images(0)
    stock_fit(began, model, module.inputs(split.images), split.labels, batch)


def stock(began: float, name: str, batch: int) -> None:
    """An experiment's network and optimizer in float32, stock layers, Keras' `fit` as it comes; nothing augmented."""
    from fmnist_exp import models
    from fmnist_exp.backend import setup
    from fmnist_exp.config import files
    from fmnist_exp.training import fit as fitting

    settings = {"training.precision": "float32", "training.epochs": 1000, "training.learning_rate": 1e-5}
    config = files.load(name, {**settings, "training.batch_size": batch})
    setup.start_keras()
    model = models.build(config.model)
    split = images(config.seed)
    labels = fitting.targets(split, config.training)
    loss = "categorical_crossentropy" if config.training.labels == "one_hot" else "sparse_categorical_crossentropy"
    optimizer = fitting.optimizer(config.training, len(split.images) // batch)
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    stock_fit(began, model, split.images, labels, batch)


def stock_fit(began: float, model: Any, x: Any, y: Any, batch: int) -> None:
    """verbose=0 spares it the progress bar."""
    from keras.callbacks import Callback

    watch = Stopwatch(began, batch, lambda: described(model, batch))

    class Watching(Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch = epoch

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            watch.hear(self.epoch, batch + 1)

    model.fit(x, y, batch_size=batch, epochs=FOREVER, callbacks=[Watching()], verbose=0)


def ours(began: float, name: str, batch: int | None) -> None:
    """An experiment as it is fitted here: augmented, observed and all."""
    from fmnist_exp import models
    from fmnist_exp.backend import layers, seeds
    from fmnist_exp.config import files
    from fmnist_exp.data import dataset
    from fmnist_exp.training import fit as fitting
    from fmnist_exp.training.events import FitCallback

    size = {"training.batch_size": batch} if batch else {}
    config = files.load(name, {**size, "training.epochs": 1000, "training.learning_rate": 1e-5})
    loaded = dataset.load(config.data, config.seed)
    seeds.prepare(config.seed, config.training.precision)
    model = layers.accelerate(models.build(config.model))
    watch = Stopwatch(began, config.training.batch_size, lambda: described(model, config.training.batch_size))

    class Watching(FitCallback):
        def on_step(self, epoch: int, step: int, steps: int) -> None:
            watch.hear(epoch, step)

    fitting.fit(model, config, loaded, [Watching()])


def images(seed: int) -> Any:
    from fmnist_exp.config.schema import DataConfig
    from fmnist_exp.data import dataset

    return dataset.load(DataConfig(), seed).train


def described(model: Any, batch: int) -> dict[str, Any]:
    from benchmarks.cost import training_flop

    return {"flop": training_flop(model), "batch": batch, "parameters": model.count_params()}


def peak_memory() -> float:
    """Of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def say(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


CONTESTANTS = {
    "float32": Contestant("2048² matrix product, float32", matrices, ("float32",)),
    "bfloat16": Contestant("2048² matrix product, bfloat16", matrices, ("bfloat16",)),
    "cnn": Contestant("cnn, batch 256", ours, ("cnn", 256)),
    "cnn_stock": Contestant("cnn, float32, stock layers, fit's defaults", stock, ("cnn", 256)),
    "cnn_fast": Contestant("cnn_fast", ours, ("cnn_fast", None)),
    "deep_cnn": Contestant("deep_cnn", ours, ("deep_cnn", None)),
    "deep_cnn_keras": Contestant("deep_cnn in plain Keras", recipe, ("deep_cnn_keras", 32)),
    "mlp": Contestant("mlp", ours, ("mlp", None)),
    "funnel_mlp": Contestant("funnel_mlp", ours, ("funnel_mlp", None)),
    "funnel_mlp_keras": Contestant("funnel_mlp in plain Keras", recipe, ("funnel_mlp_keras", 32)),
}

if __name__ == "__main__":
    contestant = CONTESTANTS[sys.argv[1]]
    contestant.start(float(sys.argv[2]), *contestant.arguments)
