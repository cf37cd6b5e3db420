"""The smoke test: send one image to a model through MLflow's scoring server, started in a separate process.

The server loads the model with this package's predictor, so that no code that travels with the model is run.
"""

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from numpy.typing import NDArray

from fmnist_exp.errors import WorkError
from fmnist_exp.tracking.redact import first_line

HOST = "127.0.0.1"
LIMIT = 120.0  # seconds from the start of the server to its answer
GRACE = 10.0  # seconds to stop before it is killed
# serves the model in a folder, and ends when its standard input does: also if this process is killed
RUN = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
from pathlib import Path
import uvicorn
from mlflow.models import Model
from mlflow.pyfunc import scoring_server
from fmnist_exp.serving import predictor
_, folder, host, port = sys.argv
model = predictor.load(Path(folder) / "data")
model.metadata = Model.load(Path(folder) / "MLmodel")
uvicorn.run(scoring_server.init(model), host=host, port=int(port), log_level="error")
"""


def request(folder: Path, image: NDArray[np.uint8], limit: float = LIMIT) -> Mapping[str, object]:
    """Return the row that the server answers for one image (28, 28), with the model in `folder`.

    Raises WorkError if the server did not start, did not answer within `limit` seconds, or answered with an error.
    """
    _bypass_proxy()
    deadline, step = time.monotonic() + limit, "start"
    with tempfile.TemporaryFile() as log, server(folder, log) as (port, process):
        timer = threading.Timer(limit, process.kill)  # MLflow's client waits for an answer without a limit
        timer.start()
        try:
            client = ScoringServerClient(HOST, port)
            client.wait_server_ready(limit, process)
            step = "answer"
            row: Mapping[str, object] = client.invoke(image[None])["predictions"][0]
        except Exception as error:  # the client raises nothing more specific
            if time.monotonic() >= deadline:
                raise WorkError(f"the scoring server did not {step} within {limit:g} seconds") from error
            reason = first_line(error)[:200] if step == "answer" else _last_line(log)
            raise WorkError(f"the scoring server did not {step}: {reason}") from error
        finally:
            timer.cancel()
    return row


@contextmanager
def server(folder: Path, log: IO[bytes]) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Run MLflow's scoring server with the model in `folder`, on a free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = int(probe.getsockname()[1])
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    # a session of its own: Ctrl-C reaches this process only, which then stops the server
    arguments = [sys.executable, "-P", "-c", RUN, str(folder), HOST, str(port)]
    process = subprocess.Popen(
        arguments, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
    )
    try:
        yield port, process
    finally:
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin:
            process.stdin.close()


def _bypass_proxy() -> None:
    """Make this process connect to the loopback interface directly, because a proxy cannot reach it."""
    excepted = (os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or HOST).split(",")
    os.environ["no_proxy"] = ",".join(dict.fromkeys([*excepted, HOST]))


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it gave no reason"
