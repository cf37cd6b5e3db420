"""A search whose trials only log curves, and a line for each of its trials: time, memory and the machine's speed."""

from __future__ import annotations

import csv
import math
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

import psutil

from benchmarks.scale.costs import LOG, SIZES, STUDY, Cost
from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.tracking.run import Run
from fmnist_exp.training.events import Epoch, FitCallback
from fmnist_exp.tuning import search as searching
from fmnist_exp.tuning.callback import SearchCallback, TrialSummary
from fmnist_exp.tuning.search import SearchRequest
from fmnist_exp.tuning.workers.messages import TrialResult

EPOCHS = 3  # of every trial
SPACE = {
    "model.dropout": {"low": 0.0, "high": 0.3},
    "model.l2": {"low": 1e-6, "high": 1e-3, "log": True},
    "training.learning_rate": {"low": 0.03, "high": 0.3, "log": True},
}
FIXED_WORK = 20_000  # turns of a loop whose CPU time tells how fast the machine is while others use it too


class CostLog(SearchCallback):
    """Callback that appends a line for each trial to a file, and the databases' sizes after each thousand.

    The first trial of a session is left out, since no trial ended before it.
    """

    def __init__(self, folder: Path, sizes: Callable[[], Mapping[str, int]]) -> None:
        self.folder = folder
        self.sizes = sizes
        self.process = psutil.Process()
        self.before: tuple[float, float] | None = None

    def on_trial_end(self, trial: TrialSummary) -> None:
        """Append the line of the trial."""
        now = time.perf_counter(), time.process_time()
        work = fixed_work()
        if self.before is not None:
            spent = round(now[0] - self.before[0], 5), round(now[1] - self.before[1], 5), round(work, 6)
            cost = Cost(trial.number, os.getpid(), *spent, self.process.memory_info().rss)
            self._append(LOG, astuple(cost))
        if (trial.number + 1) % 1000 == 0:
            for name, size in self.sizes().items():
                self._append(SIZES, (trial.number + 1, name, size))
        self.before = time.perf_counter(), time.process_time()

    def _append(self, name: str, row: Sequence[object]) -> None:
        with (self.folder / name).open("a", encoding="utf-8", newline="") as opened:
            csv.writer(opened).writerow(row)


def fixed_work() -> float:
    """Return the CPU time of a fixed piece of work, in seconds."""
    start = time.process_time()
    total = 0
    for turn in range(FIXED_WORK):
        total += turn % 7
    return time.process_time() - start


def curve(config: ExperimentConfig) -> list[dict[str, float]]:
    """Return the metrics of each epoch: smooth in the setting, with a little noise that depends on the setting."""
    rate, dropout = math.log10(config.training.learning_rate), config.model.dropout
    assert isinstance(dropout, float)  # not one for each layer
    chance = random.Random(f"{rate} {dropout}")
    best = 0.93 - 0.03 * (rate + 1) ** 2 - 0.2 * (dropout - 0.1) ** 2 + chance.gauss(0, 0.002)
    epochs = []
    for epoch in range(1, EPOCHS + 1):
        accuracy = min(1.0, max(0.0, best - 0.1 / epoch + chance.gauss(0, 0.003)))
        losses = {"train_loss": 1.1 - accuracy, "val_loss": 1.15 - accuracy}
        more = {"train_accuracy": min(1.0, accuracy + 0.01), "learning_rate": 10**rate / epoch, "epoch_seconds": 1.0}
        epochs.append({"val_accuracy": accuracy, **losses, **more})
    return epochs


def objective(config: ExperimentConfig, data: FashionMNIST, run: Run, callbacks: Sequence[FitCallback]) -> TrialResult:
    """Log and report every epoch, also after the verdict to stop, so that all trials cost the same."""
    stopped, epochs = False, curve(config)
    for number, metrics in enumerate(epochs, start=1):
        run.log_metrics(metrics, step=number)
        stopped = any([callback.on_epoch(Epoch(number, metrics)) for callback in callbacks]) or stopped
    return TrialResult(stopped, max(metrics["val_accuracy"] for metrics in epochs))


def configure(trials: int) -> ExperimentConfig:
    """Return the experiment of the search."""
    fields = {"search.n_trials": trials, "search.timeout": 100_000, "search.sampler": "tpe", "training.epochs": EPOCHS}
    return files.load("tune_cnn", {**fields, "search.space": SPACE, "training.precision": "float32"})


def run(trials: int, workers: int, storage: str, log: CostLog) -> None:
    """Run the search until its study has `trials` trials; a search that was stopped is resumed."""
    searching.run(
        SearchRequest(
            config=configure(trials),
            study=STUDY,
            storage=storage,
            workers=workers,
            objective=objective,
            trials_only=True,
            callback=log,
        )
    )
