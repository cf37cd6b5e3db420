"""Compare the trials per hour of a worker on each core, of one worker on all cores, and of one on one core.

A search takes the first: one trial per core, with one thread each. The clock starts when each worker has finished its
first trial, because Python and TensorFlow take seconds to start and a search is long. No trial is stopped early.

    python -m benchmarks.tuning.workers             # tune_mlp as it is: about 20 minutes on 2 idle cores
    python -m benchmarks.tuning.workers --experiment tune_cnn --trials 6 --training.epochs 2
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
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


def measure(experiment: str, workers: int, cores: int, trials: int, overrides: dict[str, str]) -> float:
    """Return the trials per hour of a new process."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])  # all compute with as many threads together
    # all trials have the widths of the file, or one worker might get larger networks than two
    space = {"model.dropout": {"low": 0.1, "high": 0.3}, "training.learning_rate": {"low": 1e-3, "high": 3e-3}}
    own = {**SETTING, "search.space": space, "search.n_trials": str(trials), "search.timeout": "600"}
    config = files.load(experiment, {**own, **overrides})
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        os.environ["MLFLOW_TRACKING_URI"] = processes.store(Path(folder).resolve())
        request = search.SearchRequest(config=config, study="w", workers=workers, trials_only=True, callback=clock)
        search.run(request)
    return (trials - workers) / (clock.ends[-1] - clock.ends[workers - 1]) * 3600


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return arguments.parser(
        __doc__,
        experiment=("tune_mlp", "experiment with a search"),
        trials=(12, "number of trials of each search"),
        target=(1.7, "wanted ratio of the trials per hour of a worker on each core to those of one core"),
    )


def main() -> int:
    """Measure both, print the table, and return 0 if the target is reached."""
    given, rest = parser().parse_known_args()
    overrides, cores = parse_fields(rest), len(os.sched_getaffinity(0))
    found = {}
    for workers, used in ((1, 1), (1, cores), (cores, cores)):
        print(f"{workers} worker(s) on {used} core(s):", flush=True)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:  # threads are set once
            work = measure, given.experiment, workers, used, given.trials, overrides
            found[workers, used] = process.submit(*work).result()
    single = found[1, 1]
    print(f"\n{'workers':>8}{'threads each':>14}{'trials per hour':>17}{'times the first':>17}")
    for (workers, used), per_hour in found.items():
        print(f"{workers:>8}{used // workers:>14}{per_hour:>17.1f}{per_hour / single:>17.2f}")
    ratio = found[cores, cores] / single
    print(f"\n{ratio:.2f} times; target {given.target}")
    return 0 if ratio >= given.target else 1


if __name__ == "__main__":
    raise SystemExit(main())
