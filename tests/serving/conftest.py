"""A registered version, and a server that serves it for real."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from fmnist_exp.serving import server
from fmnist_exp.serving.limits import Limits
from fmnist_exp.serving.model import ServedModel


@dataclass(frozen=True)
class Store:
    """A tracking store with one version of fashion-mnist, the champion."""

    folder: Path
    uri: str
    files: Path  # of the version

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "MLFLOW_TRACKING_URI": self.uri}


@pytest.fixture(scope="session")
def registered(tmp_path_factory, new_database, small) -> Store:
    """A small network, fitted for a moment, logged and registered as `tune` does it."""
    import mlflow

    from fmnist_exp import connection, models, registry, runtime, tracking
    from fmnist_exp.config import ModelConfig

    folder = tmp_path_factory.mktemp("registered")
    uri = new_database(folder, str(folder / "mlruns"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        runtime.prepare(0, "float32")
        model = models.build(ModelConfig(family="mlp", widths=(32,)))
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(small.train.images, small.train.labels, epochs=20, verbose=0)
        client = connection.connect()
        with tracking.closing(tracking.start_run(client, "train", "small", "small")) as run:
            model_id = run.model(model, small.validation.images[:50], {})
        version = registry.register(client, model_id, run.id, {"val_accuracy": 0.5})
        client.set_registered_model_alias(registry.NAME, registry.CHAMPION, version.version)
        files = Path(mlflow.artifacts.download_artifacts(f"models:/{model_id}"))
    return Store(folder, uri, files)


@dataclass(frozen=True)
class Running:
    """A server in a process of its own."""

    url: str
    process: subprocess.Popen[str]

    def post(self, body: object, **options: object) -> requests.Response:
        options = {"headers": {"Content-Type": "application/json"}, "timeout": 60} | options
        return requests.post(f"{self.url}/invocations", data=body, **options)

    def resident(self) -> float:
        """MiB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def serving(store: Store, *arguments: str) -> Iterator[Running]:
    """`fmnist-exp serve` on a free port, until the block ends."""
    command = [sys.executable, "-m", "fmnist_exp", "serve", "--port", "0", *arguments]
    with subprocess.Popen(
        command, cwd=store.folder, env=store.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline()
            assert "http://" in line, process.stderr.read()
            yield Running(line.split()[3], process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(30)


@pytest.fixture(scope="session")
def running(registered) -> Iterator[Running]:
    with serving(registered) as found:
        yield found
        assert found.process.poll() is None, "the server died"


@contextmanager
def in_thread(load: object, limits: Limits, warm: bool = True) -> Iterator[str]:
    """The same server inside the tests, for limits and models of their own."""
    bound = server.listen("127.0.0.1", 0)
    made = server.uvicorn_server(limits)
    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(server.run(made, load, bound, lambda model: ready.set())))
    thread.start()
    try:
        while not made.started:
            time.sleep(0.01)
        assert not warm or ready.wait(60)
        yield "http://{}:{}".format(*bound.getsockname())
    finally:
        made.should_exit = True
        thread.join(60)


@pytest.fixture(scope="session")
def served(registered) -> ServedModel:
    return ServedModel(registered.files, "fashion-mnist version 1")
