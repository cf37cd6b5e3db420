"""The long parts of benchmarks/train_speed.py: whole fits, each in a process of its own, kept in a folder.

What is there, with the experiment as its file stands now, is not fitted again; the peers go on from epoch to epoch.
Nothing tells of other code: take an empty folder after a change of it, or of a peer.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmnist_exp.config import files

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent

WANTED = 0.93  # on the test set; with it a peer is done
SEEDS, MORE_SEEDS = (0, 1, 2), (3, 4, 5)
FLOAT32 = {"training.precision": "float32"}
# platform and float32: the project's command, as the file is or in float32; stock and peer: Keras' `fit`
OVERRIDES: dict[str, dict[str, str]] = {"platform": {}, "float32": FLOAT32, "stock": FLOAT32}
Fitted = tuple[str, str]  # platform, float32, stock or peer, and a name
# What is fitted whole: kind, name, seed. Whose times are compared stand next to each other: a machine's speed drifts.
FITS = [
    *[
        fit
        for seed in SEEDS
        for fit in (("platform", "cnn_fast", seed), ("stock", "cnn_fast", seed), ("peer", "deep_cnn_keras", seed))
    ],
    # three seeds more: whether the precisions agree is a matter of tenths of a point
    *[("float32", "cnn_fast", seed) for seed in SEEDS],
    *[(kind, "cnn_fast", seed) for seed in MORE_SEEDS for kind in ("platform", "float32", "stock")],
    ("platform", "mlp", 0),
    ("peer", "funnel_mlp_keras", 0),
    *[("platform", "cnn_95", seed) for seed in SEEDS],
]


@dataclass(frozen=True)
class Fit:
    """What a fit came to."""

    seconds: float  # of fitting: steps, validation, callbacks
    test_accuracy: float
    val_accuracy: float
    mebibytes: float | None = None  # the process' peak
    wall: float | None = None  # seconds from the process' start to its end
    ended: float | None = None  # seconds since 1970


def fit(folder: Path, kind: str, name: str, seed: int) -> Fit:
    """One of FITS, to its end."""
    if kind in ("stock", "peer"):
        {"stock": stock, "peer": peer}[kind](folder, name, seed)
    else:
        write(result(folder, kind, name, seed), platform(folder, name, seed, OVERRIDES[kind]))
    done = known(folder, kind, name, seed)
    assert done
    return done


def platform(folder: Path, name: str, seed: int, overrides: Mapping[str, str]) -> Fit:
    """The whole command `fmnist-exp train`, with a tracking store in `folder`."""
    fields = [word for field, value in overrides.items() for word in (f"--{field}", value)]
    wall, mebibytes = command(
        [sys.executable, "-m", "fmnist_exp", "train", "--experiment", name, "--seed", str(seed), *fields], folder
    )
    metrics = newest(folder)
    val_accuracy = metrics.get("averaged_val_accuracy", metrics["best_val_accuracy"])
    return Fit(metrics["fit_seconds"], metrics["test_accuracy"], val_accuracy, mebibytes, wall, time.time())


def stock(folder: Path, name: str, seed: int) -> None:
    """An experiment's recipe in float32, stock layers, `fit` with its defaults."""
    file = result(folder, "stock", name, seed)
    command([sys.executable, str(HERE / "train_fits.py"), name, str(seed), str(file)], folder)


def peer(folder: Path, name: str, seed: int) -> None:
    """A recipe of peers/, until it has WANTED on the test set after an epoch, or to its end."""
    script = [sys.executable, str(HERE / "peers" / f"{name}.py"), str(folder / f"{name}-{seed}")]
    command([*script, "--seed", str(seed), "--until", str(WANTED)], folder)


def known_fits(folder: Path) -> tuple[dict[Fitted, dict[int, Fit]], list[str]]:
    """Of FITS what is in the folder, by seed, and in words what is missing."""
    found: dict[Fitted, dict[int, Fit]] = {}
    missing = []
    for kind, name, seed in FITS:
        if there := known(folder, kind, name, seed):
            found.setdefault((kind, name), {})[seed] = there
        else:
            missing.append(f"{name} ({kind}, seed {seed})")
    return found, missing


def known(folder: Path, kind: str, name: str, seed: int) -> Fit | None:
    """What is in the folder, without fitting anything; None for what is missing or not done."""
    if kind == "peer":
        found = curve(folder / f"{name}-{seed}")
        best = good_enough(found["epochs"], WANTED)
        return best if found["done"] or (best and best.test_accuracy >= WANTED) else None
    file = result(folder, kind, name, seed)
    return Fit(**json.loads(file.read_text())) if file.exists() else None


def result(folder: Path, kind: str, name: str, seed: int) -> Path:
    """The file of a fit that is not a peer's: another experiment has another."""
    config = files.load(name, {"seed": seed, **OVERRIDES[kind]})
    digest = hashlib.sha256(config.to_yaml().encode()).hexdigest()[:8]
    return folder / f"{name}{'-stock' if kind == 'stock' else ''}-{seed}-{digest}.json"


def good_enough(epochs: Sequence[dict[str, float]], wanted: float) -> Fit | None:
    """The first epoch that has `wanted` on the test set, or else the best one; None before the first."""
    there = [epoch for epoch in epochs if epoch["test_accuracy"] >= wanted]
    best = there[0] if there else max(epochs, key=lambda epoch: epoch["test_accuracy"], default=None)
    if not best:
        return None
    return Fit(best["seconds"], best["test_accuracy"], best["val_accuracy"], ended=best.get("ended"))


def curve(folder: Path) -> dict[str, Any]:
    file = folder / "curve.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"epochs": [], "done": False}
    return found


def command(arguments: Sequence[str], folder: Path) -> tuple[float, float]:
    """Run to its end: seconds, and the peak of its memory in MiB."""
    print(*arguments, flush=True)
    start = time.perf_counter()
    process = subprocess.Popen(arguments, cwd=folder, env=settings(folder), stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit code {process.returncode}")
    return time.perf_counter() - start, used.ru_maxrss / 1024


def settings(folder: Path) -> dict[str, str]:
    """The environment of a process that tracks its runs in `folder`."""
    path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "TF_CPP_MIN_LOG_LEVEL": "3"}
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "KERAS_"))}
    return {**own, **store, "PYTHONPATH": path}


def newest(folder: Path) -> dict[str, float]:
    """The metrics of the newest run in the folder's store."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    runs = client.search_runs(["0"], order_by=["attributes.start_time DESC"], max_results=1)
    return dict(runs[0].data.metrics)


def write(file: Path, what: Fit) -> None:
    new = file.with_suffix(".new")
    new.write_text(json.dumps(vars(what), indent=1))
    os.replace(new, file)


def fit_stock(name: str, seed: int, file: Path) -> None:
    """The recipe's batches, optimizer, schedule and loss; layers, precision and loop are Keras' own."""
    from fmnist_exp import models
    from fmnist_exp.backend import inference, setup
    from fmnist_exp.data import dataset
    from fmnist_exp.data.batches import batches, targets
    from fmnist_exp.models import tta
    from fmnist_exp.training import ema
    from fmnist_exp.training import fit as fitting

    config = files.load(name, {"seed": seed, "training.precision": "float32"})
    loaded = dataset.load(config.data, seed)
    setup.start_keras()
    import keras

    keras.utils.set_random_seed(seed)
    model = models.build(config.model)
    feed = batches(config, loaded.train)
    loss: Any = keras.losses.SparseCategoricalCrossentropy()
    if config.training.labels == "one_hot":
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=config.training.label_smoothing)
    model.compile(fitting.optimizer(config.training, len(feed)), loss, metrics=["accuracy"])
    stopping = keras.callbacks.EarlyStopping(
        config.training.monitor, patience=config.training.epochs, restore_best_weights=True
    )
    start = time.perf_counter()
    history = model.fit(
        feed,
        epochs=config.training.epochs,
        validation_data=(loaded.validation.images, targets(loaded.validation, config.training)),
        callbacks=[*([ema.averaging()] if config.training.ema else []), stopping],
        verbose=0,
    )
    seconds = time.perf_counter() - start
    answers = inference.predict(tta.with_tta(model, config.model), loaded.test.images)
    test_accuracy = float((answers.argmax(axis=1) == loaded.test.labels).mean())
    write(file, Fit(seconds, test_accuracy, max(history.history["val_accuracy"]), ended=time.time()))


if __name__ == "__main__":
    fit_stock(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
