"""One real request to a version through MLflow's scoring server, started for it in a process of its own."""

from __future__ import annotations

import contextlib
import json
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.errors import WorkError

if TYPE_CHECKING:
    import requests

LIMIT = 120.0  # seconds from the start of the server to its answer
GRACE = 10.0  # seconds to stop before it is killed
# runs a module, and ends when its standard input does: also if this process is killed and cannot stop it
RUN = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def request(folder: Path, image: NDArray[np.uint8], limit: float = LIMIT) -> Mapping[str, Any]:
    """The row that the server returns for one image (28, 28), with the model in `folder`.

    Raises:
        WorkError: it did not start or did not answer within `limit` seconds, or answered with an error.
    """
    import requests

    deadline = time.monotonic() + limit
    with tempfile.TemporaryDirectory() as temporary, _server(folder, Path(temporary)) as (address, process, log):
        _wait(address, process, log, deadline, limit)
        try:
            answer = _session().post(
                f"{address}/invocations",
                data=json.dumps({"inputs": image[None].tolist()}),
                headers={"Content-Type": "application/json"},
                timeout=max(1.0, deadline - time.monotonic()),
            )
        except requests.RequestException as error:
            raise WorkError(f"the scoring server did not answer: {type(error).__name__}") from error
    if not answer.ok:
        raise WorkError(f"the scoring server answered {answer.status_code}: {answer.text[:200]}")
    try:
        row: Mapping[str, Any] = answer.json()["predictions"][0]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise WorkError(f"the scoring server answered no table: {answer.text[:200]}") from error
    return row


@contextlib.contextmanager
def _server(folder: Path, temporary: Path) -> Iterator[tuple[str, subprocess.Popen[bytes], Path]]:
    """Run what `mlflow models serve --env-manager local` runs, on a free port of the loopback interface."""
    from mlflow.pyfunc.scoring_server import get_cmd

    port = _free_port()
    command, environment = get_cmd(str(folder), port=port)
    with (temporary / "log").open("wb") as log:
        process = _start([sys.executable, "-c", RUN, *shlex.split(command)], environment, log)
        try:
            yield f"http://127.0.0.1:{port}", process, temporary / "log"
        finally:
            _stop(process)


def _start(command: list[str], environment: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    # its own session: Ctrl-C reaches this process, which then stops the server
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin:
        process.stdin.close()


def _wait(address: str, process: subprocess.Popen[bytes], log: Path, deadline: float, limit: float) -> None:
    import requests

    session = _session()
    while time.monotonic() < deadline:
        if process.poll() is not None:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise WorkError(f"the scoring server did not start: {lines[-1] if lines else 'no reason given'}")
        with contextlib.suppress(requests.RequestException):
            if session.get(f"{address}/ping", timeout=1).ok:
                return
        time.sleep(0.1)
    raise WorkError(f"the scoring server was not ready within {limit:g} seconds")


def _session() -> requests.Session:
    import requests

    session = requests.Session()
    session.trust_env = False  # a proxy has no way to this machine's loopback interface
    return session


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
