"""A search whose trials train nothing, as a program of its own that can be killed: `python standin.py STUDY …`."""

import argparse
import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data import dataset
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store
from fmnist_exp.tracking.run import Run
from fmnist_exp.training.events import Epoch, FitCallback
from fmnist_exp.tuning import recovery
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.driver import Search
from fmnist_exp.tuning.search import run_trials
from fmnist_exp.tuning.watching import TrialSummary, Watcher
from fmnist_exp.tuning.workers import pool, study_lock, trial
from fmnist_exp.tuning.workers.trial import Measured, Objective

SPACE = {"model.dropout": {"low": 0.0, "high": 0.5}, "training.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}}
EPOCH_SECONDS = float(os.environ.get("EPOCH_SECONDS", "0.1"))


def configure(n_trials: int = 4, **changes: object) -> ExperimentConfig:
    own = {"name": "standin", "training.epochs": 4, "search.space": SPACE, "search.n_trials": n_trials}
    own |= {"search.startup_trials": 1000, "model.family": "mlp", "model.widths": [8]}
    return files.override(ExperimentConfig(), own | {name.replace("__", "."): value for name, value in changes.items()})


def quality(config: ExperimentConfig, epoch: int) -> float:
    """What a trial measures: a smooth function of its setting, that grows with the epochs."""
    return 0.9 - config.model.dropout / 2 - 0.1 / epoch


def deadly(config: ExperimentConfig, data: FashionMNIST, run: Run, callbacks: Sequence[FitCallback]) -> Measured:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def objective(config: ExperimentConfig, data: FashionMNIST, run: Run, callbacks: Sequence[FitCallback]) -> Measured:
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
    return Measured(stopped, {"val_accuracy": quality(config, epoch), "pid": os.getpid()})


def side_by_side(config: ExperimentConfig, data: FashionMNIST, run: Run, callbacks: Sequence[FitCallback]) -> Measured:
    """`objective`, when two workers are at it."""
    Path(f"working-{os.getpid()}").touch()
    deadline = time.monotonic() + 60
    while len(list(Path().glob("working-*"))) < 2:
        assert time.monotonic() < deadline, "no second worker came"
        time.sleep(0.02)
    return objective(config, data, run, callbacks)


class Printer(Watcher):
    def on_search(self, done: int, n_trials: int, deadline: float) -> None:
        print(f"search {done}/{n_trials}", flush=True)

    def on_trial(self, number: int, settings: object, epochs: int) -> None:
        print(f"trial {number}", flush=True)

    def on_retry(self, number: int, reason: str) -> None:
        print(f"again {number}: {reason}", flush=True)

    def on_trial_end(self, trial: TrialSummary) -> None:
        print(f"end {trial.number} {trial.state}", flush=True)


def search(
    config: ExperimentConfig,
    study: str,
    storage: str = "sqlite:///studies.db",
    workers: int | None = 2,
    scheduler: str | None = None,
    watcher: Watcher | None = None,
    does: Objective = objective,
) -> bool:
    """The search, as `fmnist-exp tune` does it; returns whether it was interrupted."""
    client = store.connect()
    data = dataset.load(config.data, config.seed)
    place = trial.place_of(config, data)
    full, hired = recovery.explaining_full_disk(study), pool.hire(workers, scheduler, data, place)
    with full, hired as staff, study_lock.hold(storage, study) as held:
        opened = studies.open_study(config, study, storage)
        with runs.closing(
            runs.start_run(client, "tune", study, config.name, more_tags={"fmnist.study": study})
        ) as parent:
            until = time.monotonic() + config.search.timeout * 60
            return run_trials(Search(config, opened, parent, place, until), staff, watcher or Watcher(), does, held)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("study")
    parser.add_argument("--storage", default="sqlite:///studies.db")
    parser.add_argument("--n_trials", type=int, default=4)
    parser.add_argument("--timeout", type=float, default=10.0)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--scheduler")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    config = configure(given.n_trials, search__timeout=given.timeout)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            if not search(config, given.study, given.storage, given.workers, given.scheduler, Printer()):
                return 0
    except RequestError as error:
        print(error, flush=True)
        return 2
    except WorkError as error:
        print(error, flush=True)
        return 1
    return 130


if __name__ == "__main__":
    import standin  # by its name, so that workers find the objective

    raise SystemExit(standin.main())
