"""The long part of benchmarks.training.speed: whole fits, each in a process of its own, kept in a folder.

A fit is not repeated while the folder has its result and the experiment's file is unchanged; a peer resumes after its
last epoch. Changes of code are not noticed: take an empty folder after a change of the platform or of a peer.
Usage (by this module): python -m benchmarks.training.fits EXPERIMENT SEED FILE fits an experiment in stock Keras.
"""

import hashlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import processes
from fmnist_exp.config import files

# Validation accuracy whose time is compared: half a percentage point below what cnn_fast and deep_cnn end with. Every
# seed of both gets there; at the end itself, chance would decide which seeds do.
WANTED = 0.925
SEEDS, MORE_SEEDS = (0, 1, 2), (3, 4, 5)
# "platform" runs the project's command; "stock" and "peer" run Keras' `fit`
OVERRIDES: dict[str, dict[str, str]] = {"platform": {}, "stock": {"training.precision": "float32"}}
Fitted = tuple[str, str]  # the kind (platform, stock or peer) and a name
# The whole fits: kind, name, seed. Fits whose times are compared follow each other, because a machine's speed drifts.
FITS = [
    *[
        fit
        for seed in SEEDS
        for fit in (("platform", "cnn_fast", seed), ("stock", "cnn_fast", seed), ("peer", "deep_cnn_keras", seed))
    ],
    *[(kind, "cnn_fast", seed) for seed in MORE_SEEDS for kind in ("platform", "stock")],
    ("platform", "mlp", 0),
    ("peer", "funnel_mlp_keras", 0),
    *[("platform", "cnn_95", seed) for seed in SEEDS],
]


@dataclass(frozen=True)
class Fit:
    """The result of a fit."""

    seconds: float  # of fitting: steps, validation, callbacks
    test_accuracy: float  # of the finished network, scored once
    val_accuracy: float  # of the finished network
    mebibytes: float | None = None  # peak memory of the process
    wall: float | None = None  # seconds from the process' start to its end
    ended: float | None = None  # seconds since 1970
    reached: float | None = None  # seconds of fitting until WANTED was reached on the validation images


def fit(folder: Path, kind: str, name: str, seed: int) -> Fit:
    """Make one of FITS and return its result."""
    if kind in ("stock", "peer"):
        {"stock": stock, "peer": peer}[kind](folder, name, seed)
    else:
        write(result_file(folder, kind, name, seed), platform(folder, name, seed, OVERRIDES[kind]))
    result = known(folder, kind, name, seed)
    assert result
    return result


def platform(folder: Path, name: str, seed: int, overrides: Mapping[str, str]) -> Fit:
    """Run the command `fmnist-exp train` with a tracking store in `folder`."""
    fields = processes.options({"experiment": name, "seed": seed, "score_test": "true", **overrides})
    wall, mebibytes = command(processes.python("fmnist_exp", "train", *fields), folder)
    metrics, curve = newest(folder)
    seconds, val_accuracy = metrics["fit_seconds"], metrics["best_val_accuracy"]
    reached = seconds_to_wanted([*curve, (seconds, val_accuracy)])
    return Fit(seconds, metrics["test_accuracy"], val_accuracy, mebibytes, wall, time.time(), reached)


def stock(folder: Path, name: str, seed: int) -> None:
    """Fit an experiment's recipe in float32 with stock layers and Keras' `fit`."""
    file = result_file(folder, "stock", name, seed)
    command(processes.python("benchmarks.training.fits", name, seed, file), folder)


def peer(folder: Path, name: str, seed: int) -> None:
    """Fit a recipe of benchmarks/peers to its end."""
    options = processes.options({"seed": seed})
    command(processes.python(f"benchmarks.peers.{name}", folder / f"{name}-{seed}", *options), folder)


def known_fits(folder: Path) -> tuple[dict[Fitted, dict[int, Fit]], list[str]]:
    """Return the fits that the folder has, by seed, and descriptions of those that are missing."""
    found: dict[Fitted, dict[int, Fit]] = {}
    missing = []
    for kind, name, seed in FITS:
        if result := known(folder, kind, name, seed):
            found.setdefault((kind, name), {})[seed] = result
        else:
            missing.append(f"{name} ({kind}, seed {seed})")
    return found, missing


def known(folder: Path, kind: str, name: str, seed: int) -> Fit | None:
    """Return the result of a fit if the folder has it; None if it is missing or unfinished."""
    if kind == "peer":
        return peers_fit(read_curve(folder / f"{name}-{seed}"))
    file = result_file(folder, kind, name, seed)
    return Fit(**json.loads(file.read_text())) if file.exists() else None


def result_file(folder: Path, kind: str, name: str, seed: int) -> Path:
    """Return the file for a fit that is not a peer's; its name depends on every field of the experiment."""
    config = files.load(name, {"seed": seed, **OVERRIDES[kind]})
    digest = hashlib.sha256(config.to_yaml().encode()).hexdigest()[:8]
    return folder / f"{name}{'-stock' if kind == 'stock' else ''}-{seed}-{digest}.json"


def peers_fit(curve: Mapping[str, Any]) -> Fit | None:
    """Return the result of a finished curve of benchmarks/peers, or None."""
    if not curve["done"] or "test_accuracy" not in curve:
        return None
    epochs = curve["epochs"]
    seconds, val_accuracy = epochs[-1]["seconds"], curve["val_accuracy"]
    points = [(epoch["seconds"], epoch["val_accuracy"]) for epoch in epochs]
    reached = seconds_to_wanted([*points, (seconds, val_accuracy)])
    return Fit(seconds, curve["test_accuracy"], val_accuracy, ended=epochs[-1]["ended"], reached=reached)


def seconds_to_wanted(curve: Sequence[tuple[float, float]]) -> float | None:
    """Return the time at which a fit reached WANTED on the validation images, or None: the same rule for everyone.

    `curve` has the seconds of fitting and the validation accuracy after each epoch, then those of the finished network,
    with the weights and the averaging of answers with which it is used.
    """
    return next((seconds for seconds, accuracy in curve if accuracy >= WANTED), None)


def read_curve(folder: Path) -> dict[str, Any]:
    """Return what benchmarks.peers.curve wrote, without importing Keras as that module does."""
    file = folder / "curve.json"
    curve: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"epochs": [], "done": False}
    return curve


def command(arguments: Sequence[str], folder: Path) -> tuple[float, float]:
    """Run a process; return its seconds and its peak memory in MiB. Raises SystemExit if it fails."""
    print(*arguments, flush=True)
    start = time.perf_counter()
    process = subprocess.Popen(arguments, cwd=folder, env=processes.environment(folder), stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit code {process.returncode}")
    return time.perf_counter() - start, used.ru_maxrss / 1024


def newest(folder: Path) -> tuple[dict[str, float], list[tuple[float, float]]]:
    """Return the metrics of the newest run in the folder's store, and its curve of validation accuracies."""
    from mlflow import MlflowClient

    client = MlflowClient(processes.store(folder))
    run = client.search_runs(["0"], order_by=["attributes.start_time DESC"], max_results=1)[0]
    seconds, accuracies = (
        [entry.value for entry in client.get_metric_history(run.info.run_id, name)]
        for name in ("epoch_seconds", "val_accuracy")
    )
    return dict(run.data.metrics), list(zip(itertools.accumulate(seconds), accuracies, strict=True))


def write(file: Path, fit: Fit) -> None:
    """Write the result of a fit, at once or not at all."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps(vars(fit), indent=1))
    os.replace(new, file)


def fit_stock(name: str, seed: int, file: Path) -> None:
    """Fit with the experiment's batches, optimizer, schedule and loss; layers, precision and loop are Keras' own."""
    from fmnist_exp import models
    from fmnist_exp.backend import inference, setup
    from fmnist_exp.data import dataset
    from fmnist_exp.data.batches import Batches, targets
    from fmnist_exp.models import tta
    from fmnist_exp.training import callbacks, optimizers

    config = files.load(name, {"seed": seed, "training.precision": "float32"})
    loaded = dataset.load(config.data, seed)
    setup.start()
    import keras

    keras.utils.set_random_seed(seed)
    model = models.build(config.model)
    feed = Batches(config, loaded.train)
    loss: Any = keras.losses.SparseCategoricalCrossentropy()
    if config.training.labels == "one_hot":
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=config.training.label_smoothing)
    model.compile(optimizers.build(config.training, len(feed)), loss, metrics=["accuracy"])
    stopping = keras.callbacks.EarlyStopping(
        config.training.monitor, patience=config.training.epochs, restore_best_weights=True
    )
    times: list[float] = []
    clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda *epoch: times.append(time.perf_counter() - start))
    start = time.perf_counter()
    history = model.fit(
        feed,
        epochs=config.training.epochs,
        validation_data=(loaded.validation.images, targets(loaded.validation, config.training)),
        callbacks=[*([callbacks.AveragedWeights()] if config.training.ema else []), stopping, clock],
        verbose=0,
    )
    seconds = time.perf_counter() - start
    averaged = tta.with_tta(model, config.model)
    val_accuracy, test_accuracy = (
        float((inference.predict(averaged, split.images).argmax(axis=1) == split.labels).mean())
        for split in (loaded.validation, loaded.test)
    )
    curve = [*zip(times, history.history["val_accuracy"], strict=True), (seconds, val_accuracy)]
    write(file, Fit(seconds, test_accuracy, val_accuracy, ended=time.time(), reached=seconds_to_wanted(curve)))


if __name__ == "__main__":
    fit_stock(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
