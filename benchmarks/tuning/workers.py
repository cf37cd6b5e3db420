"""Compare the trials per hour of one worker on one core with those of two workers on two cores, without pruning.

The clock starts when each worker has finished its first trial, because Python and TensorFlow take seconds to start and
a search is long.

    python -m benchmarks.tuning.workers             # tune_mlp as it is: about 15 minutes on 2 idle cores
    python -m benchmarks.tuning.workers --trials 4 --training.epochs 1
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import chdir
from pathlib import Path

from benchmarks import arguments, processes
from fmnist_exp.cli.options import parse_fields
from fmnist_exp.config import files
from fmnist_exp.tuning import search
from fmnist_exp.tuning.callback import SearchCallback, TrialSummary

SETTING = {"search.reduction_factor": "10", "search.min_epochs": "1000"}  # no trial is pruned


class Clock(SearchCallback):
    """Records the time at which each trial ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_trial_end(self, trial: TrialSummary) -> None:
        self.ends.append(time.monotonic())
        print(f"  trial {trial.number} {trial.state.lower()}, {trial.seconds:.1f} s", flush=True)


def measure(workers: int, trials: int, overrides: dict[str, str]) -> float:
    """Return the trials per hour."""
    # all trials have the widths of the file, or one worker might get larger networks than two
    space = {"model.dropout": {"low": 0.1, "high": 0.3}, "training.learning_rate": {"low": 1e-3, "high": 3e-3}}
    own = {**SETTING, "search.space": space, "search.n_trials": str(trials), "search.timeout": "600"}
    config = files.load("tune_mlp", {**own, **overrides})
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        os.environ["MLFLOW_TRACKING_URI"] = processes.store(Path(folder).resolve())
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, sorted(cores)[:workers])  # so that each worker has one thread
        request = search.SearchRequest(config=config, study="w", workers=workers, trials_only=True, callback=clock)
        search.run(request)
        os.sched_setaffinity(0, cores)
    return (trials - workers) / (clock.ends[-1] - clock.ends[workers - 1]) * 3600


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return arguments.parser(
        __doc__,
        trials=(12, "number of trials of each search"),
        target=(1.7, "wanted ratio of the trials per hour"),
    )


def main() -> int:
    """Measure both, print the table, and return 0 if the target is reached."""
    given, rest = parser().parse_known_args()
    overrides = parse_fields(rest)
    per_hour = []
    for workers in (1, 2):
        print(f"with {workers} worker(s):", flush=True)
        per_hour.append(measure(workers, given.trials, overrides))
    one, two = per_hour
    print(f"\n{'workers':>8}{'threads each':>14}{'trials per hour':>17}{'':>4}")
    print(f"{1:>8}{1:>14}{one:>17.1f}")
    print(f"{2:>8}{1:>14}{two:>17.1f}   {two / one:.2f} times; target {given.target}")
    return 0 if two / one >= given.target else 1


if __name__ == "__main__":
    raise SystemExit(main())
