"""A search whose trials train nothing, also as a program of its own that can be killed: `python -m support.standin`."""

import argparse
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.tracking.run import Run
from fmnist_exp.training.events import Epoch, FitCallback
from fmnist_exp.tuning import search as searching
from fmnist_exp.tuning.callback import SearchCallback, TrialSummary
from fmnist_exp.tuning.result import SearchResult
from fmnist_exp.tuning.search import SearchRequest
from fmnist_exp.tuning.workers.messages import TrialResult
from support import searches

SPACE = {"model.dropout": {"low": 0.0, "high": 0.5}, "training.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}
EPOCH_SECONDS = float(os.environ.get("EPOCH_SECONDS", "0.1"))


def configure(n_trials: int = 4, **changes: object) -> ExperimentConfig:
    own: dict[str, Any] = {"name": "standin", "training__epochs": 4, "search__space": SPACE, "model__widths": [8]}
    own |= {"search__n_trials": n_trials, "search__startup_trials": 1000, "search__pruner": "successive_halving"}
    return searches.configure(**{**own, **changes})


def quality(config: ExperimentConfig, epoch: int) -> float:
    """Return what a trial measures: a smooth function of its setting, which grows with the epochs."""
    return 0.9 - config.model.dropout / 2 - 0.1 / epoch


def deadly(config: ExperimentConfig, data: FashionMNIST, run: Run, callbacks: Sequence[FitCallback]) -> TrialResult:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def objective(config: ExperimentConfig, data: FashionMNIST, run: Run, callbacks: Sequence[FitCallback]) -> TrialResult:
    working = Path(f"working-{os.getpid()}")  # in the driver's folder: whom a test may kill
    working.touch()
    stopped, epoch = False, 0
    while epoch < config.training.epochs and not stopped:
        epoch += 1
        for step in range(10):
            time.sleep(EPOCH_SECONDS / 10)
            for callback in callbacks:
                callback.on_step(epoch, step + 1, 10)
        metrics = {"val_accuracy": quality(config, epoch)}
        run.log_metrics(metrics, step=epoch)
        stopped = any([callback.on_epoch(Epoch(epoch, metrics)) for callback in callbacks])
    working.unlink()
    run.log_metrics({"pid": os.getpid()})
    return TrialResult(stopped, quality(config, epoch))


def side_by_side(
    config: ExperimentConfig, data: FashionMNIST, run: Run, callbacks: Sequence[FitCallback]
) -> TrialResult:
    """`objective`, when two workers are at it."""
    Path(f"working-{os.getpid()}").touch()
    deadline = time.monotonic() + 60
    while len(list(Path().glob("working-*"))) < 2:
        assert time.monotonic() < deadline, "no second worker came"
        time.sleep(0.02)
    return objective(config, data, run, callbacks)


class Killer(SearchCallback):
    """SIGKILL to the first worker that has done an epoch; keeps a diary."""

    def __init__(self) -> None:
        self.killed: list[int] = []
        self.retried: list[int] = []
        self.paused: list[int] = []
        self.together = 0  # trials, before one lost its worker
        self.running: set[int] = set()
        self.notices: list[str] = []

    def on_notice(self, text: str) -> None:
        self.notices.append(text)

    def on_trial(self, number: int, settings: object, epochs: int) -> None:
        self.running.add(number)
        if not self.killed:
            self.together = max(self.together, len(self.running))

    def on_progress(self, number: int, epochs: float) -> None:
        if epochs >= 1 and not self.killed:
            pid = int(next(Path().glob("working-*")).name.removeprefix("working-"))
            self.killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    def on_retry(self, number: int, reason: str) -> None:
        self.retried.append(number)

    def on_pause(self, number: int, epochs: int) -> None:
        self.paused.append(number)
        self.running.discard(number)

    def on_trial_end(self, trial: TrialSummary) -> None:
        self.running.discard(trial.number)


class Printer(SearchCallback):
    def on_search(self, done: int, n_trials: int, deadline: float) -> None:
        print(f"search {done}/{n_trials}", flush=True)

    def on_trial(self, number: int, settings: object, epochs: int) -> None:
        print(f"trial {number}", flush=True)

    def on_retry(self, number: int, reason: str) -> None:
        print(f"retry {number}: {reason}", flush=True)

    def on_trial_end(self, trial: TrialSummary) -> None:
        print(f"end {trial.number} {trial.state}", flush=True)


def search(config: ExperimentConfig, study: str, **request: Any) -> SearchResult:
    """Run stand-in trials in two processes, unless `request`, fields of a SearchRequest, says more."""
    own = {"workers": 2, "objective": objective, "trials_only": True}
    return searching.run(SearchRequest(config=config, study=study, **{**own, **request}))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("study")
    parser.add_argument("--n_trials", type=int, default=4)
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        result = search(configure(given.n_trials), given.study, workers=given.workers, callback=Printer())
    except (RequestError, WorkError) as error:
        print(error, flush=True)
        return 2 if isinstance(error, RequestError) else 1
    except KeyboardInterrupt:
        return 130
    return 130 if result.status == "interrupted" else 0


if __name__ == "__main__":
    from support import standin  # by its name, so that workers find the objective

    raise SystemExit(standin.main())
