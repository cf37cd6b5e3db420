"""Compare `fmnist-exp serve` with `mlflow models serve`, which serves the same network in MLflow's keras flavor.

    python -m benchmarks.serving

The benchmark needs wrk (Debian: apt-get install wrk) and a registered champion in the current tracking store. The two
servers run one after the other on this machine, with wrk on the same cores. The whole takes about four minutes.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import arguments
from benchmarks.processes import python

CONNECTIONS = 8
SCRIPT = """
wrk.method, wrk.headers["Content-Type"] = "POST", "application/json"
wrk.body = io.open("%s"):read("*a")
function done(summary, latency, requests)
  local e = summary.errors
  print(string.format("RESULT {%%q: %%f, %%q: %%f, %%q: %%f, %%q: %%d, %%q: %%d}", "rate",
    summary.requests / summary.duration * 1e6, "p50", latency:percentile(50) / 1e3, "p99", latency:percentile(99) / 1e3,
    "errors", e.connect + e.read + e.write + e.status + e.timeout, "requests", summary.requests))
end
"""


@dataclass(frozen=True)
class Load:
    """The results of wrk."""

    rate: float  # requests per second
    p50: float  # ms
    p99: float  # ms
    errors: int
    requests: int


@dataclass(frozen=True)
class Measurements:
    """The measurements of one server; every list has one entry per repetition."""

    cold: list[float]  # seconds from the command to the first answer
    memory: list[float]  # MiB of all its processes after the load
    loads: list[Load]
    one: list[float]  # ms per request with one image, without parallel requests
    many: list[float]  # ms per request with 64 images


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return arguments.parser(
        __doc__,
        model=("models:/fashion-mnist@champion", "version to serve"),
        repetitions=(3, "number of starts of each server"),
        seconds=(10, "duration of each load"),
        sustained=(60, "duration of the long load in seconds"),
    )


def main() -> None:
    """Measure both servers and print the table. Exits with 1 if a number is not reached."""
    given = parser().parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed; on Debian: apt-get install wrk")
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = prepare(folder, given.model)
        peer = python("mlflow", "models", "serve", "-m", folder / "plain", "--env-manager", "local")
        ours = python("fmnist_exp", "serve", "--model", given.model)
        slow = measure(peer, folder, images, given.repetitions, given.seconds)
        fast = measure(ours, folder, images, given.repetitions, given.seconds)
        with serving(ours, images[:1]) as (port, _, _):
            long = wrk(folder, port, given.sustained)
    print(f"{os.cpu_count()} cores, load before {before:.1f}; {given.model}; medians of {given.repetitions}\n")
    sys.exit(0 if report(slow, fast, long, given.sustained) else 1)


def prepare(folder: Path, uri: str) -> np.ndarray:
    """Save the network in the keras flavor, write a request for wrk, and return 64 real images."""
    import mlflow
    from mlflow.models import infer_signature

    from fmnist_exp.config.schema import DataConfig
    from fmnist_exp.data import dataset

    images = dataset.load(DataConfig(), seed=0).test.images[:64]
    model = mlflow.keras.load_model(uri)
    mlflow.keras.save_model(
        model, str(folder / "plain"), pip_requirements=["mlflow"], signature=infer_signature(images)
    )
    (folder / "body.json").write_bytes(body(images[:1]))
    (folder / "wrk.lua").write_text(SCRIPT % (folder / "body.json"))
    return images


def measure(command: Sequence[str], folder: Path, images: np.ndarray, repetitions: int, seconds: int) -> Measurements:
    """Start the server `repetitions` times; each time measure it under load and with single requests."""
    measured = Measurements([], [], [], [], [])
    for _ in range(repetitions):
        with serving(command, images[:1]) as (port, process, cold):
            measured.cold.append(cold)
            wrk(folder, port, 3)
            measured.loads.append(wrk(folder, port, seconds))
            measured.one.append(latency(port, images[:1]))
            measured.many.append(latency(port, images))
            measured.memory.append(sum(resident(pid) for pid in tree(process.pid)))
    return measured


@contextmanager
def serving(command: Sequence[str], image: np.ndarray) -> Iterator[tuple[int, subprocess.Popen[bytes], float]]:
    """Run a server; yield its port, its process, and the seconds until its first answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = time.perf_counter()
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*command, "--port", str(port)], **silent) as process:
        try:
            while True:
                try:
                    ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), body(image))
                    break
                except (OSError, AssertionError):
                    assert process.poll() is None, f"the server did not start: {' '.join(command)}"
                    time.sleep(0.02)
            yield port, process, time.perf_counter() - start
        finally:
            for pid in tree(process.pid):
                os.kill(pid, signal.SIGTERM)


def wrk(folder: Path, port: int, seconds: int) -> Load:
    """Send requests with one image each on eight connections."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "--timeout", "30", "-s", str(folder / "wrk.lua")]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/invocations"], capture_output=True, text=True, check=True
    )
    return Load(**json.loads(done.stdout.split("RESULT ")[1]))


def latency(port: int, images: np.ndarray) -> float:
    """Return the median ms of 50 requests, one after the other on one connection."""
    connection, content = http.client.HTTPConnection("127.0.0.1", port, timeout=60), body(images)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        ask(connection, content)
        times.append(1000 * (time.perf_counter() - start))
    connection.close()
    return statistics.median(times)


def ask(connection: http.client.HTTPConnection, content: bytes) -> None:
    """Send a request and read the answer, which must be a success."""
    connection.request("POST", "/invocations", content, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    assert response.status == 200, answer


def body(images: np.ndarray) -> bytes:
    return json.dumps({"inputs": images.tolist()}, separators=(",", ":")).encode()


def tree(pid: int) -> list[int]:
    """Return the ids of a process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(grandchild for child in children for grandchild in tree(int(child)))]


def resident(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def report(slow: Measurements, fast: Measurements, long: Load, sustained: int) -> bool:
    """Print the table; return True if every number is reached."""
    more, more_there = (statistics.median(each.many) - statistics.median(each.one) for each in (fast, slow))
    errors = long.errors + sum(load.errors for load in fast.loads)
    both = (slow, fast)
    rows: list[tuple[str, list[list[float]], str, float | None, bool]] = [
        ("requests/s, 8 connections", [[load.rate for load in each.loads] for each in both], "at least 20", 20, False),
        ("p50, ms", [[load.p50 for load in each.loads] for each in both], "", None, True),
        ("p99, ms", [[load.p99 for load in each.loads] for each in both], "at most 0.05", 1 / 20, True),
        ("cold start, s", [each.cold for each in both], "at most 0.33", 1 / 3, True),
        ("memory, MiB", [each.memory for each in both], "at most 0.33", 1 / 3, True),
    ]
    reached = more < 15 and errors == 0
    print("| | mlflow models serve, keras | fmnist-exp serve | ratio | wanted |\n|---|---:|---:|---:|---|")
    for name, values, wanted, bound, low in rows:
        there, here = map(statistics.median, values)
        ratio = here / there
        reached = reached and (bound is None or (ratio <= bound if low else ratio >= bound))
        print(f"| {name} | {there:.1f} | {here:.1f} | {ratio:.3g} | {wanted} |")
    print(f"| ms that 64 images in a request take longer than one | {more_there:.1f} | {more:.1f} | | under 15 |")
    print(f"| errors in {sustained} s of load ({long.requests:,} requests) | | {errors} | | 0 |")
    print("\nAll numbers are reached." if reached else "\nSome numbers are NOT reached.")
    return reached


if __name__ == "__main__":
    main()
