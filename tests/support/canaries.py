"""Secrets that a test can find wherever they come out, and places where they may."""

import base64
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import mlflow
import psutil
import psycopg
import requests

from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.tracking.run import Run
from fmnist_exp.training.events import FitCallback
from fmnist_exp.tuning.workers.messages import TrialResult
from support import standin

WORD = "Canary7"  # part of every piece of every secret


def secret(name: str) -> str:
    """Return a password of pieces that hold WORD, between all characters that separate the parts of an address."""
    separators = ["/", " ", "@", "#", "%", ":", "?", "&"]
    return "".join(f"{WORD}{name}{number}{separator}" for number, separator in enumerate(separators)) + WORD


def encoded(name: str) -> str:
    """Return the same password as it stands in an address."""
    return quote(secret(name), safe="")


def in_bytes(content: bytes) -> bool:
    """Return True if a canary is in the bytes: as it is, or in base64, where it may begin at three places."""
    shifted = [base64.b64encode(b"x" * shift + WORD.encode())[2 * (shift > 0) + shift :] for shift in range(3)]
    found = [WORD.encode(), *(text.rstrip(b"=")[:-1] for text in shifted)]
    return any(text in content for text in found)


def files_with_canaries(folder: Path) -> list[str]:
    """Return the files below a folder whose content or name has a canary."""
    files = [path for path in folder.rglob("*") if path.is_file() or path.is_symlink()]
    return [str(path) for path in files if WORD in str(path) or (path.is_file() and in_bytes(path.read_bytes()))]


def rows_with_canaries(address: str) -> list[str]:
    """Return all rows with a canary of all tables of a PostgreSQL database."""
    found = []
    with psycopg.connect(address.replace("+psycopg", "")) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            rows = connection.execute(f'SELECT t::text FROM "{table}" t').fetchall()
            found += [f"{table}: {row}" for (row,) in rows if in_bytes(row.encode())]
    return found


class ProcessList:
    """The command lines of all descendants of this process, which other users can read, until the block ends."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        own = psutil.Process()
        while not self._over.wait(0.05):
            for child in own.children(recursive=True):
                try:
                    self.seen.add(" ".join(child.cmdline()))
                except psutil.Error:
                    continue


def leaking(config: ExperimentConfig, data: FashionMNIST, run: Run, callbacks: Sequence[FitCallback]) -> TrialResult:
    """Log the address of the tracking server wherever a trial can, and end with an error that has it."""
    address = mlflow.get_tracking_uri()
    assert WORD in address, "this worker does not know the password"
    run.set_tags({"address": address, "mlflow.note.content": f"[server]({address})"})
    run.log_params({"address": address})
    standin.objective(config, data, run, callbacks)
    requests.get(
        f"{address}/nothing", timeout=10, verify=os.environ["MLFLOW_TRACKING_SERVER_CERT_PATH"]
    ).raise_for_status()  # the error has the whole address
    raise AssertionError("the server answers everything")


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables until the block ends."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
