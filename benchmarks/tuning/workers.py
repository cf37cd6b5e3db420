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
    from fmnist_exp.tuning import search
    from fmnist_exp.tuning.callback import SearchCallback, TrialSummary

    class Clock(SearchCallback):
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
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, sorted(cores)[:workers])  # one thread a worker, whether there is one or two
        search.run(
            search.SearchRequest(config=config, study="workers", workers=workers, trials_only=True, callback=clock)
        )
        os.sched_setaffinity(0, cores)
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
