"""Trains a recipe whole and writes what each epoch came to, so that it can be stopped, read and gone on with.

FOLDER/curve.json has one entry per epoch: seconds of fitting so far (steps, validation and the recipe's own callbacks;
neither scoring the test set nor saving is in them), val_accuracy, val_loss, test_accuracy, and when it ended, in
seconds since 1970.
"""

import argparse
import json
import os
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from keras import callbacks, utils
from keras.models import load_model

from fmnist_exp.config.schema import DataConfig
from fmnist_exp.data import dataset


def main(recipe: ModuleType) -> None:
    parser = argparse.ArgumentParser(description=recipe.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=recipe.EPOCHS)
    parser.add_argument("--images", type=int, help="train on so many only, to try it")
    parser.add_argument("--until", type=float, default=1.0, help="test accuracy after which no more is wanted")
    arguments = parser.parse_args()
    train(recipe, arguments.folder, arguments.seed, arguments.epochs, arguments.images, arguments.until)


def train(
    recipe: ModuleType, folder: Path, seed: int, epochs: int, images: int | None = None, until: float = 1.0
) -> None:
    """Fit from where an earlier call was stopped, to the end or to a test accuracy of `until`."""
    folder.mkdir(parents=True, exist_ok=True)
    known = read(folder)
    if known["done"] or any(epoch["test_accuracy"] >= until for epoch in known["epochs"]):
        return
    images_of = dataset.load(DataConfig(), seed)
    x, y = recipe.inputs(images_of.train.images[:images]), images_of.train.labels[:images]
    utils.set_random_seed(seed + len(known["epochs"]))
    model = load_model(folder / "state.keras") if known["epochs"] else recipe.build()
    own = recipe.watchers(folder)
    tests = recipe.inputs(images_of.test.images), images_of.test.labels
    model.fit(
        x,
        y,
        initial_epoch=len(known["epochs"]),
        epochs=epochs,
        validation_data=(recipe.inputs(images_of.validation.images), images_of.validation.labels),
        callbacks=[*own, Curve(folder, known, own, tests, until)],
        verbose=2,
    )
    known["done"] = known["epochs"][-1]["test_accuracy"] < until
    write(folder, known)


class Curve(callbacks.Callback):
    """Stands last: what the recipe's own callbacks do belongs to the epoch."""

    def __init__(
        self, folder: Path, known: dict[str, Any], own: list[Any], tests: tuple[Any, Any], until: float
    ) -> None:
        super().__init__()
        self.folder, self.known, self.own, self.tests, self.until = folder, known, own, tests, until

    def on_train_begin(self, logs: Any = None) -> None:
        """Keras' callbacks begin without a memory; they have seen the epochs before."""
        for callback in self.own:
            for epoch in self.known["epochs"]:
                better = epoch["val_loss"] < (float("inf") if callback.best is None else callback.best)
                if better:
                    callback.best = epoch["val_loss"]
                if hasattr(callback, "wait"):
                    callback.wait = 0 if better else (callback.wait + 1) % callback.patience
                    # at its patience early stopping has ended the fit, and a plateau begins to count again

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        epochs = self.known["epochs"]
        seconds = time.perf_counter() - self.start + (epochs[-1]["seconds"] if epochs else 0)
        _, test_accuracy = self.model.evaluate(*self.tests, batch_size=1000, verbose=0)
        measured = {name: float(logs[name]) for name in ("val_accuracy", "val_loss")}
        epochs.append({"seconds": seconds, **measured, "test_accuracy": float(test_accuracy), "ended": time.time()})
        self.model.save(self.folder / "new.keras")
        os.replace(self.folder / "new.keras", self.folder / "state.keras")
        write(self.folder, self.known)
        self.model.stop_training |= test_accuracy >= self.until


def read(folder: Path) -> dict[str, Any]:
    """The epochs so far, and whether these are all."""
    file = folder / "curve.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"epochs": [], "done": False}
    return found


def write(folder: Path, known: dict[str, Any]) -> None:
    new = folder / "curve.new"
    new.write_text(json.dumps(known, indent=1))
    os.replace(new, folder / "curve.json")
