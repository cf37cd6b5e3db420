"""Servers for tests: `fmnist-exp serve` as a process, the same inside the tests, and what to send to them."""

import asyncio
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import requests

from fmnist_exp.serving import server
from fmnist_exp.serving.hosts import Hosts
from fmnist_exp.serving.limits import Limits
from fmnist_exp.serving.model import ServedModel

IMAGE = np.full((28, 28), 7).tolist()


def body(*images: object) -> bytes:
    return json.dumps({"inputs": list(images)}).encode()


def refused(response: requests.Response, status: int, reason: str) -> None:
    assert response.status_code == status, response.text
    answer = response.json()
    assert set(answer) == {"error_code", "message"}
    assert reason in answer["message"]
    assert answer["message"].endswith(".")
    assert "Traceback" not in response.text
    assert len(response.text) < 300  # no echo


def connect(url: str, source: str = "127.0.0.1") -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((address.hostname, address.port), timeout=30, source_address=(source, 0))


def ask(url: str, **headers: str) -> requests.Response:
    """Send a request with one image."""
    headers = {"Content-Type": "application/json"} | headers
    return requests.post(f"{url}/invocations", body(IMAGE), headers=headers, timeout=60)


def send(url: str, content: bytes) -> bytes:
    """Send bytes on a connection of their own, and return all that the server answers."""
    with connect(url) as client:
        client.sendall(content)
        return read_all(client)


def read_all(client: socket.socket) -> bytes:
    """Return what the server sends until it closes the connection."""
    content = bytearray()
    with suppress(ConnectionResetError):
        while part := client.recv(65536):
            content += part
    return bytes(content)


def gauge(url: str, name: str) -> float:
    return float(re.search(rf"^{name} (\S+)$", requests.get(f"{url}/metrics", timeout=30).text, re.MULTILINE)[1])


HEAD = b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


@dataclass(frozen=True)
class Store:
    """A tracking store with one version of fashion-mnist, the champion."""

    folder: Path
    uri: str
    files: Path  # of the version

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "MLFLOW_TRACKING_URI": self.uri}


@dataclass(frozen=True)
class Running:
    """A server in a process of its own."""

    url: str
    process: subprocess.Popen[str]

    def post(self, body: object, **options: object) -> requests.Response:
        options = {"headers": {"Content-Type": "application/json"}, "timeout": 60} | options
        return requests.post(f"{self.url}/invocations", data=body, **options)

    def resident(self) -> float:
        """Return the resident memory of the process in MiB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def serving(store: Store, *arguments: str, files: int | None = None) -> Iterator[Running]:
    """Run `fmnist-exp serve` on a free port until the block ends; it may open as many files as `files` says."""
    limit = None if files is None else partial(resource.setrlimit, resource.RLIMIT_NOFILE, (files, files))
    command = [sys.executable, "-m", "fmnist_exp", "serve", "--port", "0", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=store.folder, env=store.environment, preexec_fn=limit, **pipes) as process:
        try:
            line = process.stdout.readline()
            assert "http://" in line, process.stderr.read()
            yield Running(line.split()[3], process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(30)


@contextmanager
def in_thread(load: object, limits: Limits, warm: bool = True, hosts: tuple[str, ...] = ()) -> Iterator[str]:
    """Run the same server inside the tests, with limits and models of their own."""
    bound = server.listen("127.0.0.1", 0)
    made = server.Server(limits, Hosts(hosts))
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


class Waiting(ServedModel):
    """A model that answers no request before `release` is set."""

    def __init__(self, files: Path) -> None:
        super().__init__(files, "waiting")
        self.release = threading.Event()

    def answer(self, body: bytes, limit: int) -> tuple[bytes, list[str]]:
        self.release.wait(60)
        return super().answer(body, limit)
