"""Fixtures for several test files: real images, a fresh MLflow store, an environment without the user's settings."""

import csv
import gzip
import logging
import os
import shutil
import signal
import sqlite3
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from support.servers import Store

from fmnist_exp.config.schema import DataConfig
from fmnist_exp.data import cache, dataset, formats
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.serving.model import ServedModel

hypothesis.settings.register_profile("fmnist_exp", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("fmnist_exp")


@pytest.fixture(scope="session", autouse=True)
def no_settings_of_the_user() -> Iterator[None]:
    """Remove the settings that `mlflow run` passes on: the tests decide where MLflow and Optuna write."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("MLFLOW_", "FMNIST_EXP_")) and name != "FMNIST_EXP_CACHE":
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def reports() -> Callable[[], None]:
    """Return a function that gives the reports of errors back to pytest."""
    factory, hooks = logging.getLogRecordFactory(), (sys.excepthook, sys.unraisablehook, threading.excepthook)

    def give_back() -> None:
        logging.setLogRecordFactory(factory)
        sys.excepthook, sys.unraisablehook, threading.excepthook = hooks

    return give_back


@pytest.fixture(autouse=True)
def reported_by_pytest(reports) -> Iterator[None]:
    """Undo what `failures.install` changes in this process, for example by a Dask worker that runs inside it."""
    yield
    reports()


@pytest.fixture(scope="module", autouse=True)
def no_other_package() -> None:
    """Remove the copies of this package that come with loaded models; MLflow puts them first in the path."""
    ours = Path(dataset.__file__).parents[2]
    sys.path[:] = [entry for entry in sys.path if Path(entry) == ours or not Path(entry, "fmnist_exp").is_dir()]


@pytest.fixture(scope="module", autouse=True)
def no_other_store() -> Iterator[None]:
    """Forget the store that a Dask worker inside this process has set, since MLflow prefers it to the variable."""
    yield
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)


@pytest.fixture
def ctrl_c_heeded() -> Iterator[None]:
    """Let child processes react to Ctrl-C, which is ignored if the tests run in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def data(no_settings_of_the_user) -> FashionMNIST:
    """Return the real images: 48,000 for training, 6,000 each for validation and gate, 10,000 for the test."""
    return dataset.load(DataConfig(), seed=0)


@pytest.fixture(scope="session")
def small(data) -> FashionMNIST:
    """Return 1,000 real images, equally many of each class: 600 for training, 200 for validation, 200 for the test."""

    def first(split: Split, count: int) -> Split:
        per_class = [np.flatnonzero(split.labels == label)[: count // 10] for label in range(10)]
        chosen = np.sort(np.concatenate(per_class))
        return Split(split.name, split.images[chosen], split.labels[chosen])

    return FashionMNIST(first(data.train, 600), first(data.validation, 200), first(data.test, 200), data.source)


@pytest.fixture(scope="session")
def real_folder(tmp_path_factory, data) -> Path:
    """Write the four real files, gzipped, from the data that load() has cached on this machine."""
    parsed = cache.read_cache("official", "")
    folder = tmp_path_factory.mktemp("fashion-mnist")
    for field, file in formats.IDX_FILES.items():
        array = getattr(parsed, field)
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (folder / f"{file.name}.gz").write_bytes(gzip.compress(header + array.tobytes(), compresslevel=0))
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory, small) -> str:
    """Eight hundred real images as the two CSV files: what is split can be put together again only from a source."""
    target = tmp_path_factory.mktemp("csv")
    head = ["label", *(f"pixel{place}" for place in range(1, 785))]
    for name, splits in (("train", (small.train, small.validation)), ("test", (small.test,))):
        with (target / f"fashion-mnist_{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(head)
            for split in splits:
                for image, label in zip(split.images, split.labels, strict=True):
                    table.writerow([label, *image.ravel()])
    return str(target)


@pytest.fixture(scope="session")
def new_database(tmp_path_factory) -> Callable[[Path, str], str]:
    """Put an empty MLflow database into a folder, with artifacts below an address; returns the database's address.

    MLflow takes seconds to create its tables: they are made once and copied.
    """
    import mlflow

    template = tmp_path_factory.mktemp("template") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{template}").search_experiments()

    def make(folder: Path, artifacts: str) -> str:
        database = shutil.copy(template, folder / "mlflow.db")
        with sqlite3.connect(database) as connection:  # the default experiment remembers the template's folder
            connection.execute("UPDATE experiments SET artifact_location = ? || '/' || experiment_id", [artifacts])
        connection.close()
        return f"sqlite:///{database}"

    return make


@contextmanager
def embedded_store(folder: Path, new_database: Callable[[Path, str], str]) -> Iterator[str]:
    """Work in `folder`, with an MLflow store of its own there.

    MLflow keeps a store object per address for as long as the process lives. No two addresses are the same here, so
    nothing leaks from test to test.
    """
    uri = new_database(folder, str(folder / "mlruns"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        yield uri


@pytest.fixture
def store(tmp_path, new_database) -> Iterator[str]:
    """A fresh embedded store for one test, which works in its folder."""
    with embedded_store(tmp_path, new_database) as uri:
        yield uri


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory, new_database) -> Iterator[str]:
    """One embedded store for all tests of a file."""
    with embedded_store(tmp_path_factory.mktemp("store"), new_database) as uri:
        yield uri


@pytest.fixture(scope="session")
def registered(tmp_path_factory, new_database, small) -> Store:
    """A store with one version, the champion: a small network, fitted for a moment and registered as by `tune`."""
    import mlflow

    from fmnist_exp import models
    from fmnist_exp.backend import seeds
    from fmnist_exp.config.schema import ModelConfig
    from fmnist_exp.export import packaging
    from fmnist_exp.registry import deliveries, versions  # noqa: F401 — models are delivered by it
    from fmnist_exp.tracking import models as logged_models
    from fmnist_exp.tracking import run as runs
    from fmnist_exp.tracking import store

    folder = tmp_path_factory.mktemp("registered")
    uri = new_database(folder, str(folder / "mlruns"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        seeds.prepare(0, "float32")
        model = models.build(ModelConfig(family="mlp", widths=(32,)))
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(small.train.images, small.train.labels, epochs=20, verbose=0)
        client = store.connect()
        with runs.closing(runs.start_run(client, "train", "small", "small")) as run:
            model_id = logged_models.log(
                run, partial(packaging.save, model=model, examples=small.validation.images[:50]), {}
            )
        version = versions.register(client, model_id, run.id, {"val_accuracy": 0.5})
        client.set_registered_model_alias(versions.NAME, versions.CHAMPION, version.version)
        files = Path(mlflow.artifacts.download_artifacts(f"models:/{model_id}"))
    return Store(folder, uri, files)


@pytest.fixture(scope="session")
def served(registered) -> ServedModel:
    """Return the model of that version, for servers inside the tests."""
    return ServedModel(registered.files, "fashion-mnist version 1")
