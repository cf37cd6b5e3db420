"""Measure how long after the command the first trial of a search starts (wanted: at most 10 s).

Each run begins a search with a new store, which it creates, and then another search with the store that exists. A
search ends as soon as its first trial has begun. `mlflow run` starts the same command in a new process.

    python -m benchmarks.tuning.first_trial          # about 4 minutes on 2 idle cores
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from mlflow import MlflowClient

from benchmarks import arguments, processes
from fmnist_exp.tracking.names import Tag

BEGUN = "plan for"  # the line that the first trial prints when it begins
COMMANDS = {
    "fmnist-exp tune": processes.python("fmnist_exp", "tune"),
    "mlflow run . -e tune": processes.python(
        "mlflow", "run", processes.PROJECT, "-e", "tune", "--env-manager", "local"
    ),
}


def measure(name: str, folder: Path, study: str) -> float:
    """Return the seconds from the start of a command to that of its first trial, and end the search."""
    storage = f"sqlite:///{folder}/{study}.db"
    given = ["-P", f"storage={storage}"] if name.startswith("mlflow") else ["--storage", storage]
    environment = {**processes.environment(folder), "FMNIST_EXP_SPOOL": str(folder / "spool")}
    start = time.time()
    with subprocess.Popen(
        [*COMMANDS[name], *given],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        printed = []
        for line in process.stdout:
            printed.append(line)
            if line.startswith(BEGUN):
                break
        else:
            raise SystemExit("the search ended before its first trial:\n" + "".join(printed))
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate()
    client = MlflowClient(processes.store(folder))
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    trials = client.search_runs(experiments, f"tags.`{Tag.TRIAL}` = '0'", order_by=["attributes.start_time DESC"])
    return trials[0].info.start_time / 1000 - start


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return arguments.parser(__doc__, runs=(3, "number of runs"), target=(10.0, "wanted seconds"))


def main() -> int:
    """Measure, print the table, and return 0 if the first trial of the command itself starts in time."""
    given = parser().parse_args()
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(given.runs):
        for name in COMMANDS:
            with tempfile.TemporaryDirectory() as folder:
                for store in ("new store", "old store"):
                    seconds = measure(name, Path(folder).resolve(), store.replace(" ", "-"))
                    found.setdefault((name, store), []).append(seconds)
                    print(f"{number + 1}: {name}, {store}: {seconds:.1f} s", flush=True)
    print(f"\n{'command':<22}{'store':<11}{'median':>8}{'at most':>9}   n = {given.runs}")
    for (name, store), seconds in found.items():
        print(f"{name:<22}{store.split()[0]:<11}{statistics.median(seconds):>6.1f} s{max(seconds):>7.1f} s")
    own = [second for (name, _), seconds in found.items() for second in seconds if not name.startswith("mlflow")]
    return 0 if max(own) <= given.target else 1


if __name__ == "__main__":
    raise SystemExit(main())
