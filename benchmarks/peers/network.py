"""The search space and the network of all contestants in the race, in stock Keras, and a note of each epoch.

The network is that of `experiments/tune_cnn.yaml`, layer by layer (a test compares the parameters). It is fitted in
float32 by Keras' `fit`, in one of two ways, each with a range of learning rates that fits its optimizer. `tutorial` is
what tutorials do: Adam with a constant learning rate, batches of 128 and unchanged images. `same` is the recipe of the
experiment: the platform's Muon, one learning-rate cycle, batches of 256 and mirrored images. Apart from that optimizer,
only the reading of the images is the platform's. Every contestant tries the recipe's first setting first.
"""

import argparse
import json
import math
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, regularizers

from fmnist_exp.config import files
from fmnist_exp.config.schema import DataConfig
from fmnist_exp.data import dataset
from fmnist_exp.training import optimizers

EPOCHS = 5
BLOCKS = ((16, 48, 1), (32, 96, 2), (64, 128, 2))  # lowest and highest number of filters, number of convolutions
STEP = 16  # filters
DROPOUT, L2 = (0.0, 0.3), (1e-6, 1e-3)


@dataclass(frozen=True)
class Setting:
    """A point of the search space."""

    dropout: float
    l2: float
    learning_rate: float
    widths: tuple[int, ...]


@dataclass(frozen=True)
class Recipe:
    """A way to fit the network."""

    batch: int
    rate: tuple[float, float]  # lowest and highest learning rate
    first: Setting  # of every search


RECIPES = {
    "tutorial": Recipe(128, (1e-4, 1e-2), Setting(0.0, 1e-5, 1e-3, (32, 64, 128))),  # Adam's default rate
    "same": Recipe(256, (0.03, 0.3), Setting(0.0, 1e-5, 0.1, (32, 64, 128))),  # as in the experiment's file
}


@dataclass(frozen=True)
class Task:
    """The command line of a peer; `seconds` count from the start of its process."""

    seconds: float
    seed: int
    recipe: str
    notes: str

    @property
    def how(self) -> Recipe:
        """The recipe that `recipe` names."""
        return RECIPES[self.recipe]

    @property
    def left(self) -> float:
        """Seconds until the time is over."""
        return self.seconds - elapsed()


def task() -> Task:
    """Read the command line of a peer."""
    parser = argparse.ArgumentParser(description="A contestant of benchmarks.tuning.race.")
    parser.add_argument("--seconds", type=float, required=True, help="time from the start of the process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", choices=RECIPES, default="tutorial", help="way of fitting")
    parser.add_argument("--notes", required=True, help="file to which each epoch appends a line")
    given = parser.parse_args()
    keras.utils.set_random_seed(given.seed)
    return Task(given.seconds, given.seed, given.recipe, given.notes)


def elapsed() -> float:
    """Return the seconds since the race started this process, imports included."""
    return time.time() - float(os.environ["RACE_START"])


def images() -> tuple[Any, Any]:
    """Return training and validation images with their labels, split as by the platform with data.split_seed=0.

    The environment variable RACE_IMAGES limits the number of training images, to try a peer.
    """
    data = dataset.load(DataConfig(split_seed=0), 0)
    most = int(os.environ.get("RACE_IMAGES", len(data.train.images)))
    return (data.train.images[:most], data.train.labels[:most]), (data.validation.images, data.validation.labels)


def draw(random_numbers: random.Random, recipe: Recipe) -> Setting:
    """Return a random setting."""
    depth = random_numbers.choice((2, 3))
    widths = tuple(random_numbers.randrange(low, high + 1, STEP) for low, high, _ in BLOCKS[:depth])
    logs = [np.exp(random_numbers.uniform(*np.log(limits))) for limits in (L2, recipe.rate)]
    return Setting(random_numbers.uniform(*DROPOUT), *map(float, logs), widths)


def build(setting: Setting, recipe: str, epochs: int, training_images: int) -> keras.Model:
    """Return the compiled network."""
    penalty = regularizers.L2(setting.l2)

    def convolution(filters: int) -> Any:
        options = {"padding": "same", "use_bias": False, "kernel_initializer": "he_normal"}
        return layers.Conv2D(filters, 3, kernel_regularizer=penalty, **options)

    inputs = keras.Input((28, 28))
    x = layers.Reshape((28, 28, 1))(layers.Rescaling(1 / (255 * 0.353), offset=-0.286 / 0.353)(inputs))
    x = layers.RandomFlip("horizontal")(x) if recipe == "same" else x
    for filters, (_, _, convolutions) in zip(setting.widths, BLOCKS, strict=False):
        x = layers.MaxPooling2D()(convolution(filters)(x))
        x = layers.ReLU()(layers.BatchNormalization()(x))
        for _ in range(convolutions - 1):
            x = layers.Add()([x, layers.ReLU()(layers.BatchNormalization()(convolution(filters)(x)))])
        x = layers.Dropout(setting.dropout)(x)
    outputs = layers.Dense(10, activation="softmax", kernel_regularizer=penalty)(layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    optimizer: Any = keras.optimizers.Adam(setting.learning_rate)
    if recipe == "same":
        changed = {"learning_rate": setting.learning_rate, "epochs": epochs}
        training = files.load("tune_cnn").training.model_copy(update=changed)
        optimizer = optimizers.build(training, math.ceil(training_images / RECIPES[recipe].batch))
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


class Notes(keras.callbacks.Callback):
    """Writes the time and validation accuracy of each epoch to a file, and ends the fit when the time is over."""

    def __init__(self, task: Task, trial: Callable[[], int]) -> None:
        super().__init__()
        self.task, self.trial = task, trial

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        line = {"seconds": elapsed(), "trial": self.trial(), "val_accuracy": float(logs["val_accuracy"])}
        with open(self.task.notes, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.task.left < 0:
            raise TimeoutError


def fit(setting: Setting, task: Task, trial: int, epochs: int = EPOCHS) -> float:
    """Fit a setting and return its best validation accuracy. Raises TimeoutError when the time is over."""
    keras.backend.clear_session()
    training, validation = images()
    model = build(setting, task.recipe, epochs, len(training[0]))
    notes = Notes(task, lambda: trial)
    options = {"batch_size": task.how.batch, "epochs": epochs, "validation_data": validation}
    seen = model.fit(*training, **options, verbose=0, callbacks=[notes])
    return float(max(seen.history["val_accuracy"]))
