"""Compare the cost of tracking: MLflow's client, autologging, this platform without and with its spool.

Every way logs runs of 20 epochs of 50 ms: six metrics an epoch; for the first two rows of each table and the platform
also params, three datasets, tags and artifacts, the same for all of them. Models are left out. An epoch is the time
for which the fit waits; a run is the rest: its start, and its end until the store has everything. The version without
a spool is a commit of this repository. The ways are measured in turns, each in a process of its own.

    python -m benchmarks.tracking.cost              # about 10 minutes on 2 idle cores

It exits with 1 if the spool costs more than 2 ms an epoch or 50 ms a run against the embedded SQLite store.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import arguments, processes, reporting
from benchmarks.chaos import services

BEFORE = "030af64"  # the last commit without a spool
LIMITS = {"epochs": 2.0, "runs": 50.0}  # milliseconds that the spool may cost
NAMES = {
    "client": "`MlflowClient`",
    "autolog": "`mlflow.keras.autolog`, without its model",
    "before": "fmnist_exp without the spool",
    "ours": "fmnist_exp with the spool",
}
COLUMNS = {"epochs": "an epoch, ms", "runs": "the rest of a run, ms", "cpu": "CPU of a run, ms"}

Times = dict[str, dict[str, list[float]]]  # way → what → milliseconds


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return arguments.parser(
        __doc__,
        rounds=(4, "processes of each way and store, in turns"),
        repeats=(5, "runs of each process, after one that does not count"),
        before=(BEFORE, "commit of the version without a spool"),
    )


def main() -> int:
    """Measure, print a table for each store, and return the exit code."""
    given = parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="cost-") as made, contextlib.ExitStack() as stack:
        folder = Path(made)
        before = checkout(given.before, folder / "before")
        results = {}
        for name, store in stores(folder, stack).items():
            results[name] = measure(store, before, folder, given.rounds, given.repeats)
            print("\n".join(table(name, results[name])), flush=True)
    print("\n".join(verdict(results)))
    return 0 if within_limits(next(iter(results.values()))) else 1


def checkout(commit: str, folder: Path) -> Path:
    """Return a folder with the package at a commit of this repository."""
    command = ["git", "archive", commit, "fmnist_exp", "experiments"]
    archive = subprocess.run(command, cwd=processes.PROJECT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        packed.extractall(folder, filter="data")
    return folder


def stores(folder: Path, stack: contextlib.ExitStack) -> dict[str, str]:
    """Return the addresses of the two stores by name, the embedded one first; the server ends with the stack."""
    server, url = services.tracking_server(
        folder, folder / "server.log", f"sqlite:///{folder}/server.db", folder / "artifacts"
    )
    stack.callback(server.kill)
    server.start()
    server.wait()
    return {"embedded SQLite": f"sqlite:///{folder}/embedded.db", "a local server": url}


def measure(store: str, before: Path, folder: Path, rounds: int, repeats: int) -> Times:
    """Return the times of every way against one store."""
    times: Times = collections.defaultdict(lambda: collections.defaultdict(list))
    for _ in range(rounds):
        for way in NAMES:
            for what, found in once(way, store, before, folder, repeats).items():
                times[way][what] += found
    return times


def once(way: str, store: str, before: Path, folder: Path, repeats: int) -> dict[str, list[float]]:
    """Return the times of one process."""
    package = before if way == "before" else processes.PROJECT
    environment = {**processes.environment(folder), "MLFLOW_TRACKING_URI": store, "PYTHONPATH": str(package)}
    script = processes.PROJECT / "benchmarks" / "tracking" / "once.py"
    command = [sys.executable, "-P", script, "ours" if way == "before" else way, repeats]
    done = subprocess.run(list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{way} failed:\n{done.stderr[-3000:]}")
    found: dict[str, list[float]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def table(name: str, times: Mapping[str, Mapping[str, Sequence[float]]]) -> Iterator[str]:
    """Yield the lines of a table in Markdown: mean ± standard deviation, then the median, and n."""
    yield f"\n| {name} | {' | '.join(COLUMNS.values())} | n: epochs, runs |"
    yield "|---|---:|---:|---:|---:|"
    for way, text in NAMES.items():
        cells = [
            f"{reporting.spread(times[way][what], 1)} ({statistics.median(times[way][what]):.1f})" for what in COLUMNS
        ]
        yield f"| {text} | {' | '.join(cells)} | {len(times[way]['epochs'])}, {len(times[way]['runs'])} |"


def verdict(results: Mapping[str, Times]) -> Iterator[str]:
    """Yield the difference that the spool makes, with the standard error of the means."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    yield f"\nMean ± standard deviation (median); {reporting.processor()}, load of the machine at the end: {load}."
    for place, (name, times) in enumerate(results.items()):
        for what, limit in LIMITS.items():
            more, error = difference(times["ours"][what], times["before"][what])
            wanted = f"; at most {limit:g} are allowed" if place == 0 else ""
            of = COLUMNS[what].rpartition(",")[0]
            yield f"With {name} the spool adds {more:+.1f} ± {error:.1f} ms to {of}{wanted}."


def difference(with_it: Sequence[float], without: Sequence[float]) -> tuple[float, float]:
    """Return the difference of the means, and its standard error."""
    error = sum(statistics.variance(values) / len(values) for values in (with_it, without)) ** 0.5
    return statistics.mean(with_it) - statistics.mean(without), error


def within_limits(times: Times) -> bool:
    """Return True if the spool costs no more than allowed."""
    return all(difference(times["ours"][what], times["before"][what])[0] <= limit for what, limit in LIMITS.items())


if __name__ == "__main__":
    raise SystemExit(main())
