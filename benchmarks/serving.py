"""How fast a version is served, beside `mlflow models serve` of the same network logged with the plain keras flavor.

    python benchmarks/serving.py

Needs wrk (Debian: apt-get install wrk) and a registered champion in the current tracking store. Both servers run one
after the other on this machine, with wrk on the same cores; takes about four minutes.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
    """What wrk saw."""

    rate: float  # requests per second
    p50: float  # ms
    p99: float  # ms
    errors: int
    requests: int


@dataclass(frozen=True)
class Figures:
    """What was measured of one server; every list has one entry per repetition."""

    cold: list[float]  # s, from the command to the first answer
    memory: list[float]  # MiB, of all its processes after the load
    loads: list[Load]
    one: list[float]  # ms per request with one image, one request after the other
    many: list[float]  # ms, with 64


def main() -> None:
    """Measure both servers, print the table, exit 1 if a number is not reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="models:/fashion-mnist@champion")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10, help="of each load")
    parser.add_argument("--sustained", type=int, default=60, help="seconds of the long load")
    arguments = parser.parse_args()
    if not shutil.which("wrk"):
        sys.exit("wrk is not installed; on Debian: apt-get install wrk")
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = prepare(folder, arguments.model)
        python = [sys.executable, "-m"]
        peer = [*python, "mlflow", "models", "serve", "-m", str(folder / "plain"), "--env-manager", "local"]
        ours = [*python, "fmnist_exp", "serve", "--model", arguments.model]
        slow = measure(peer, folder, images, arguments.repetitions, arguments.seconds)
        fast = measure(ours, folder, images, arguments.repetitions, arguments.seconds)
        with serving(ours, images[:1]) as (port, _, _):
            long = wrk(folder, port, arguments.sustained)
    print(f"{os.cpu_count()} cores, load before {before:.1f}; {arguments.model}; medians of {arguments.repetitions}\n")
    sys.exit(0 if report(slow, fast, long, arguments.sustained) else 1)


def prepare(folder: Path, uri: str) -> np.ndarray:
    """The same network in the plain keras flavor, a body for wrk, and real images."""
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


def measure(command: Sequence[str], folder: Path, images: np.ndarray, repetitions: int, seconds: int) -> Figures:
    """Start the server `repetitions` times; load it and ask it each time."""
    found = Figures([], [], [], [], [])
    for _ in range(repetitions):
        with serving(command, images[:1]) as (port, process, cold):
            found.cold.append(cold)
            wrk(folder, port, 3)
            found.loads.append(wrk(folder, port, seconds))
            found.one.append(latency(port, images[:1]))
            found.many.append(latency(port, images))
            found.memory.append(sum(resident(pid) for pid in tree(process.pid)))
    return found


@contextmanager
def serving(command: Sequence[str], image: np.ndarray) -> Iterator[tuple[int, subprocess.Popen[bytes], float]]:
    """The server on a port of its own, its process, and the seconds until its first answer."""
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
                    assert process.poll() is None, f"it did not start: {' '.join(command)}"
                    time.sleep(0.02)
            yield port, process, time.perf_counter() - start
        finally:
            for pid in tree(process.pid):
                os.kill(pid, signal.SIGTERM)


def wrk(folder: Path, port: int, seconds: int) -> Load:
    """One image per request on eight connections."""
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}", "--timeout", "30", "-s", str(folder / "wrk.lua")]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/invocations"], capture_output=True, text=True, check=True
    )
    return Load(**json.loads(done.stdout.split("RESULT ")[1]))


def latency(port: int, images: np.ndarray) -> float:
    """Median ms of 50 requests, one after the other on one connection."""
    connection, content = http.client.HTTPConnection("127.0.0.1", port, timeout=60), body(images)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        ask(connection, content)
        times.append(1000 * (time.perf_counter() - start))
    connection.close()
    return statistics.median(times)


def ask(connection: http.client.HTTPConnection, content: bytes) -> None:
    connection.request("POST", "/invocations", content, {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = response.read()
    assert response.status == 200, answer


def body(images: np.ndarray) -> bytes:
    return json.dumps({"inputs": images.tolist()}, separators=(",", ":")).encode()


def tree(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(grandchild for child in children for grandchild in tree(int(child)))]


def resident(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def report(slow: Figures, fast: Figures, long: Load, sustained: int) -> bool:
    """Print the table; whether every number is reached."""
    rate: Callable[[Figures], float] = lambda figures: statistics.median(load.rate for load in figures.loads)  # noqa: E731
    p50: Callable[[Figures], float] = lambda figures: statistics.median(load.p50 for load in figures.loads)  # noqa: E731
    p99: Callable[[Figures], float] = lambda figures: statistics.median(load.p99 for load in figures.loads)  # noqa: E731
    cold, memory = (statistics.median(figures) for figures in (slow.cold, slow.memory))
    our_cold, our_memory = (statistics.median(figures) for figures in (fast.cold, fast.memory))
    one, many = statistics.median(fast.one), statistics.median(fast.many)
    more, more_there = many - one, statistics.median(slow.many) - statistics.median(slow.one)
    errors = long.errors + sum(load.errors for load in fast.loads)
    rows = [
        ("requests/s, 8 connections", rate(slow), rate(fast), rate(fast) / rate(slow), "at least 20", 20, False),
        ("p50, ms", p50(slow), p50(fast), p50(fast) / p50(slow), "", None, True),
        ("p99, ms", p99(slow), p99(fast), p99(fast) / p99(slow), "at most 0.05", 1 / 20, True),
        ("cold start, s", cold, our_cold, our_cold / cold, "at most 0.33", 1 / 3, True),
        ("memory, MiB", memory, our_memory, our_memory / memory, "at most 0.33", 1 / 3, True),
    ]
    reached = more < 15 and errors == 0
    print("| | mlflow models serve, keras | fmnist-exp serve | ratio | wanted |\n|---|---:|---:|---:|---|")
    for name, there, here, ratio, wanted, bound, low in rows:
        reached = reached and (bound is None or (ratio <= bound if low else ratio >= bound))
        print(f"| {name} | {there:.1f} | {here:.1f} | {ratio:.3g} | {wanted} |")
    print(f"| 64 images in one request: ms more than one | {more_there:.1f} | {more:.1f} | | under 15 |")
    print(f"| errors in {sustained} s of load ({long.requests:,} requests) | | {errors} | | 0 |")
    print("\nall reached" if reached else "\nNOT all reached")
    return reached


if __name__ == "__main__":
    main()
