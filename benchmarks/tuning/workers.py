"""Trials per hour with one worker of one thread, and with two: the same trials of tune_mlp, pruning off.

The first run of each is thrown away by starting the clock at the first trial's end: starting Python and TensorFlow
costs seconds whatever the number of workers, and a search is long.

    python benchmarks/workers.py                                # tune_mlp as it is: about 15 minutes on 2 quiet cores
    python benchmarks/workers.py --trials 4 --training.epochs 1
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import chdir
from pathlib import Path

SETTING = {"search.reduction_factor": "10", "search.min_epochs": "1000"}  # no rung is reached: nothing is pruned


def measure(workers: int, trials: int, overrides: dict[str, str]) -> float:
    """Trials per hour."""
    from fmnist_exp.config import files
    from fmnist_exp.data import dataset
    from fmnist_exp.tracking import run as runs
    from fmnist_exp.tracking import store
    from fmnist_exp.tuning import study as studies
    from fmnist_exp.tuning.driver import Search
    from fmnist_exp.tuning.search import run_trials
    from fmnist_exp.tuning.watching import TrialSummary, Watcher
    from fmnist_exp.tuning.workers import dask as dask_workers
    from fmnist_exp.tuning.workers import pool, trial

    class Clock(Watcher):
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_trial_end(self, trial: TrialSummary) -> None:
            self.ends.append(time.monotonic())
            print(f"  {workers} workers: trial {trial.number} {trial.state.lower()}, {trial.seconds:.1f} s", flush=True)

    # every trial has the experiment's own widths: else one worker might get larger networks than two
    space = {"model.dropout": {"low": 0.1, "high": 0.3}, "training.learning_rate": {"low": 1e-3, "high": 3e-3}}
    own = {**SETTING, "search.space": space, "search.n_trials": str(trials), "search.timeout": "600"}
    config = files.load("tune_mlp", {**own, **overrides})
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path(folder).resolve()}/mlflow.db"
        data = dataset.load(config.data, config.seed)
        study = studies.open_study(config, "workers", "sqlite:///studies.db")
        place = trial.place_of(config, data)
        parent = runs.start_run(store.connect(), "tune", "workers", config.name)
        with dask_workers.local(workers, threads=1) as processes:  # both with one thread a worker
            alone = pool.Workers(processes, threads=1)
            run_trials(Search(config, study, parent, place, time.monotonic() + 36_000), alone, clock)
    return (trials - workers) / (clock.ends[-1] - clock.ends[workers - 1]) * 3600


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--target", type=float, default=1.7)
    given, rest = parser.parse_known_args()
    overrides = {name.removeprefix("--"): value for name, value in zip(rest[::2], rest[1::2], strict=True)}
    one, two = (measure(workers, given.trials, overrides) for workers in (1, 2))
    print(f"\n{'workers':>8}{'threads each':>14}{'trials per hour':>17}{'':>4}")
    print(f"{1:>8}{1:>14}{one:>17.1f}")
    print(f"{2:>8}{1:>14}{two:>17.1f}   {two / one:.2f} times; target {given.target}")
    return 0 if two / one >= given.target else 1


if __name__ == "__main__":
    raise SystemExit(main())
