"""Measure the time that a trial takes besides fitting, and whether it grows with the number of trials.

First come real trials of tune_mlp in this process: the time of a trial from ask to tell without that of `fit` (wanted:
at most 1.5 s). Then come 2,000 trials of a stand-in objective that trains nothing: they take the driver's own time,
with study and tracking, which should stay constant (wanted: the last hundred at most 1.2 times the first hundred).

    python -m benchmarks.tuning.trial_cost          # about 10 minutes on 2 idle cores
    python -m benchmarks.tuning.trial_cost --real 2 --standins 100 --training.epochs 1
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

from benchmarks import arguments, processes
from fmnist_exp.cli.options import parse_fields
from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.tracking import store
from fmnist_exp.tracking.run import Run
from fmnist_exp.training.events import Epoch, FitCallback
from fmnist_exp.tuning import search as searching
from fmnist_exp.tuning.callback import SearchCallback, TrialSummary
from fmnist_exp.tuning.search import SearchRequest
from fmnist_exp.tuning.workers.messages import TrialResult
from fmnist_exp.tuning.workers.trial import Objective

BLOCK = 100  # number of consecutive stand-in trials that are averaged


class Clock(SearchCallback):
    """Records the time at which each trial ends."""

    def __init__(self) -> None:
        self.ends = [0.0]
        self.run_ids: list[str] = []

    def on_search(self, done: int, n_trials: int, deadline: float) -> None:
        self.ends = [time.perf_counter()]

    def on_trial_end(self, trial: TrialSummary) -> None:
        self.ends.append(time.perf_counter())
        self.run_ids.append(trial.run_id)

    def seconds(self) -> list[float]:
        """Return the time of each trial."""
        return [end - begin for begin, end in zip(self.ends, self.ends[1:], strict=False)]


def standin(config: ExperimentConfig, data: FashionMNIST, run: Run, callbacks: Sequence[FitCallback]) -> TrialResult:
    """Report and log two epochs as a real trial does, without training."""
    accuracy = 0.9 - config.model.dropout / 10
    for number in (1, 2):
        epoch = Epoch(number, {"val_accuracy": accuracy})
        run.log_metrics(epoch.metrics, step=number)
        if any([callback.on_epoch(epoch) for callback in callbacks]):
            return TrialResult(True, accuracy)
    return TrialResult(False, accuracy)


def search(count: int, objective: Objective | None, overrides: dict[str, str]) -> tuple[Clock, Any]:
    """Run `count` trials in this process; return the clock and the client of the tracking store."""
    own = {"search.n_trials": str(count), "search.timeout": "600"}
    config = files.load("tune_mlp", {**own, **overrides})
    clock = Clock()
    request = SearchRequest(
        config=config, study=f"cost-{count}", workers=1, objective=objective, trials_only=True, callback=clock
    )
    searching.run(request)
    return clock, store.client()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return arguments.parser(
        __doc__,
        real=(6, "number of real trials"),
        standins=(2000, "number of stand-in trials"),
    )


def main() -> int:
    """Measure both, print the times, and return 0 if both are as wanted."""
    given, rest = parser().parse_known_args()
    overrides = parse_fields(rest)
    with tempfile.TemporaryDirectory() as folder, chdir(folder):
        os.environ["MLFLOW_TRACKING_URI"] = processes.store(Path(folder).resolve())
        clock, client = search(given.real, None, overrides)
        fits = [client.get_run(run_id).data.metrics["fit_seconds"] for run_id in clock.run_ids]
        wholes = clock.seconds()
        costs = [whole - fit for whole, fit in zip(wholes, fits, strict=True)][1:]  # the first one starts TensorFlow
        cost = statistics.median(costs)
        print(f"a trial without its fit: median {cost:.2f} s (n = {len(costs)}), at most {max(costs):.2f} s")
        times = search(given.standins, standin, overrides)[0].seconds()
    first, last = statistics.mean(times[:BLOCK]), statistics.mean(times[-BLOCK:])
    for start in range(0, len(times), max(BLOCK, len(times) // 10)):
        print(f"trials from {start:>5}: {statistics.mean(times[start : start + BLOCK]) * 1000:>6.1f} ms each")
    print(f"last {BLOCK} of {len(times)}: {last * 1000:.1f} ms each, {last / first:.2f} times the first {BLOCK}")
    return 0 if cost <= 1.5 and last / first <= 1.2 else 1


if __name__ == "__main__":
    raise SystemExit(main())
