"""Fit a recipe of this folder and write the result of each epoch, so that the fit can be stopped and resumed.

FOLDER/curve.json has one entry per epoch: `seconds` of fitting so far (steps, validation and the recipe's own
callbacks, but not saving), `val_accuracy`, `val_loss`, and when the epoch `ended`, in seconds since 1970. The test set
is scored once, after the last epoch: `test_accuracy` and `val_accuracy` beside the epochs are those of the finished
network, which has the weights that the recipe's early stopping restores.
"""

import argparse
import json
import os
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from keras import Model, callbacks, utils
from keras.models import load_model

from fmnist_exp.config.schema import DataConfig
from fmnist_exp.data import dataset

LAST, BEST = "state.keras", "least_loss.keras"  # the network of the last epoch, and of that with the least val_loss


def main(recipe: ModuleType) -> None:
    """Read the command line of a recipe and fit it."""
    parser = argparse.ArgumentParser(description=recipe.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of curve.json and of the state")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=recipe.EPOCHS)
    parser.add_argument("--images", type=int, help="number of training images (default: all)")
    arguments = parser.parse_args()
    train(recipe, arguments.folder, arguments.seed, arguments.epochs, arguments.images)


def train(recipe: ModuleType, folder: Path, seed: int, epochs: int, images: int | None = None) -> None:
    """Fit to the end, after the last epoch of an earlier call, and score the finished network on the test set, once."""
    folder.mkdir(parents=True, exist_ok=True)
    known = read(folder)
    if known["done"]:
        return
    images_of = dataset.load(DataConfig(), seed)
    train, validation, test = (
        (recipe.inputs(split.images), recipe.targets(split.labels))
        for split in (images_of.train, images_of.validation, images_of.test)
    )
    x, y = (array[:images] for array in train)
    utils.set_random_seed(seed)
    if hasattr(recipe, "extended"):
        x, y = recipe.extended(x, y)
    utils.set_random_seed(seed + len(known["epochs"]))
    model = load_model(folder / LAST) if known["epochs"] else recipe.build()
    own = recipe.recipe_callbacks(folder)
    model.fit(
        x,
        y,
        batch_size=recipe.BATCH,
        initial_epoch=len(known["epochs"]),
        epochs=epochs,
        validation_data=validation,
        callbacks=[*own, Curve(folder, known, own)],
        verbose=2,
    )
    restored = any(getattr(callback, "restore_best_weights", False) for callback in own)
    finished = load_model(folder / (BEST if restored else LAST))
    known |= {"val_accuracy": accuracy(finished, *validation), "test_accuracy": accuracy(finished, *test)}
    write(folder, {**known, "parameters": finished.count_params(), "done": True})


def accuracy(model: Model, x: Any, y: Any) -> float:
    return float(model.evaluate(x, y, batch_size=1000, verbose=0, return_dict=True)["accuracy"])


class Curve(callbacks.Callback):
    """Writes the curve. It comes last, so that the time of the recipe's own callbacks counts."""

    def __init__(self, folder: Path, known: dict[str, Any], own: list[Any]) -> None:
        super().__init__()
        self.folder, self.known, self.own = folder, known, own

    def on_train_begin(self, logs: Any = None) -> None:
        """Show the earlier epochs to the recipe's callbacks, which Keras does not save."""
        for callback in (callback for callback in self.own if hasattr(callback, "best")):
            for epoch in self.known["epochs"]:
                better = epoch["val_loss"] < (float("inf") if callback.best is None else callback.best)
                if better:
                    callback.best = epoch["val_loss"]
                if hasattr(callback, "wait"):
                    callback.wait = 0 if better else (callback.wait + 1) % callback.patience
                    # at its patience, early stopping has ended the fit and a plateau starts to count again

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        epochs = self.known["epochs"]
        seconds = time.perf_counter() - self.start + (epochs[-1]["seconds"] if epochs else 0)
        measured = {name: float(logs[name]) for name in ("val_accuracy", "val_loss")}
        better = measured["val_loss"] < min((epoch["val_loss"] for epoch in epochs), default=float("inf"))
        epochs.append({"seconds": seconds, **measured, "ended": time.time()})
        for name in (BEST, LAST) if better else (LAST,):
            self.model.save(self.folder / "new.keras")
            os.replace(self.folder / "new.keras", self.folder / name)
        write(self.folder, self.known)


def read(folder: Path) -> dict[str, Any]:
    """Return the epochs so far, and whether the fit is done."""
    file = folder / "curve.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"epochs": [], "done": False}
    return found


def write(folder: Path, known: dict[str, Any]) -> None:
    """Write the curve, at once or not at all."""
    new = folder / "curve.new"
    new.write_text(json.dumps(known, indent=1))
    os.replace(new, folder / "curve.json")
