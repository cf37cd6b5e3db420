"""One trial where it runs: in the driver's own process or on a worker. It trains and reports; the driver decides."""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fmnist_exp.backend import machine, setup
from fmnist_exp.config.schema import DataConfig, ExperimentConfig
from fmnist_exp.data import dataset
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError, WorkError, is_full_disk
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.tracking import redact, store
from fmnist_exp.tracking.run import Run
from fmnist_exp.training.events import Epoch, FitCallback
from fmnist_exp.tuning import objectives
from fmnist_exp.tuning.workers.jobs import DriverGone

PROGRESS_SECONDS = 0.5  # between two reports of steps


@dataclass(frozen=True)
class Measured:
    """What a trial came to. `known` is kept with the trial in the study: model_id, best_epoch, objectives."""

    stopped: bool  # by the driver, before its last epoch
    known: Mapping[str, Any]  # plain numbers and texts


Objective = Callable[[ExperimentConfig, FashionMNIST, Run, Sequence[FitCallback]], Measured]


class Line(Protocol):
    """How a trial talks with the driver; cluster.Line, or a function call."""

    place: str  # where the trial runs
    address: str  # of the process, in Task.cores

    def say(self, kind: str, **body: Any) -> None:
        """Tell the driver."""

    def ask(self, kind: str, **body: Any) -> Mapping[str, Any]:
        """Tell the driver, and wait for its answer."""


@dataclass(frozen=True)
class Place:
    """What a worker must have to run a search's trials."""

    tracking_uri: str
    data: DataConfig
    seed: int  # of the split
    digests: tuple[str, str]  # of the training and the validation images
    code: str  # digest of the package


@dataclass(frozen=True)
class Task:
    """One trial, as it goes to a worker; it is safe to run twice, since the driver gives each execution its run."""

    number: int
    config: ExperimentConfig  # with the trial's setting, without the search
    objective: Objective
    place: Place
    cores: Mapping[str, str] = field(default_factory=dict)  # worker's address → machine.core_set() there
    threads: int | None = None  # of a worker, where it is not to share them out by itself


def train(
    config: ExperimentConfig,
    data: FashionMNIST,
    run: Run,
    callbacks: Sequence[FitCallback],
    names: Sequence[str] = ("val_accuracy",),
) -> Measured:
    """The objective: the whole experiment, but for the test set. `names` are what the search makes good."""
    outcome = experiment_run.run_experiment(config, data, run, callbacks, score_test=False)
    found = objectives.measure(names, outcome, data.validation.images)
    run.log_metrics({name: value for name, value in found.items() if name == "prediction_seconds"})
    known = {"model_id": outcome.model_id, "best_epoch": outcome.fit.best.number, **found}
    return Measured(outcome.fit.stopped_by_callback, known)


def run_here(task: Task, line: Line, data: FashionMNIST) -> None:
    """Run the trial with the driver's own data. Raises DriverGone if nobody wants it any more."""
    answer = line.ask("start", place=line.place, address=line.address, pid=os.getpid())
    if answer["stop"]:
        return
    try:
        run = Run(store.client(), answer["run_id"])
        measured = task.objective(task.config, data, run, [_Reporter(line)])
    except DriverGone:
        raise
    except Exception as error:  # whatever broke this setting, the search goes on with the next
        line.say("failed", reason=redact.first_line(error), full=is_full_disk(error))
    else:
        line.say("end", stopped=measured.stopped, known=dict(measured.known))


def run_on_worker(task: Task, line: Line) -> None:
    """Run the trial with this worker's own copy of the data, which must be the driver's."""
    siblings = list(task.cores.values()).count(machine.core_set())
    setup.start(task.threads or max(1, machine.cores() // max(1, siblings)))
    try:
        data = _load(task.place)
    except (RequestError, WorkError) as error:
        line.say("unfit", reason=f"worker {line.place}: {error}")
        return
    run_here(task, line, data)


def examine(place: Place) -> str:
    """Why trials cannot run on this worker, or nothing."""
    try:
        _load(place)
    except Exception as error:  # whatever it is, it would break trials too
        return redact.first_line(error)
    return ""


@functools.cache
def code_digest() -> str:
    """Of the package's own modules: equal on workers that would compute the same."""
    content = hashlib.sha256()
    root = Path(__file__).parents[2]
    for path in sorted(root.rglob("*.py")):
        content.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return content.hexdigest()[:12]


def place_of(config: ExperimentConfig, data: FashionMNIST) -> Place:
    """What a worker needs for trials of this search."""
    seed = config.seed if config.data.split_seed is None else config.data.split_seed
    return Place(store.address(), config.data, seed, (data.train.digest, data.validation.digest), code_digest())


@functools.lru_cache(maxsize=1)  # a worker does this for its first trial; those that follow find it done
def _load(place: Place) -> FashionMNIST:
    """Reach the tracking store, and load the images. Raises RequestError or WorkError."""
    if place.code != code_digest():
        raise RequestError(
            f"another version of fmnist_exp (code {code_digest()}, the driver's is {place.code});"
            " install the same one everywhere"
        )
    store.use(place.tracking_uri)
    data = dataset.load(place.data, place.seed)
    if (data.train.digest, data.validation.digest) != place.digests:
        raise RequestError(f"the images from {data.source} are not the driver's; is data.source the same everywhere?")
    return data


class _Reporter(FitCallback):
    """Reports steps now and then, and each epoch; the driver's answer may stop the fit, or break it off."""

    def __init__(self, line: Line) -> None:
        self.line = line
        self.said = 0.0

    def on_step(self, epoch: int, step: int, steps: int) -> None:
        if time.monotonic() - self.said > PROGRESS_SECONDS:
            self.said = time.monotonic()
            self.line.say("progress", epochs=epoch - 1 + step / steps)

    def on_epoch(self, epoch: Epoch) -> bool:
        answer = self.line.ask("epoch", epoch=epoch.number, val_accuracy=float(epoch.metrics["val_accuracy"]))
        if answer.get("gone"):  # the run is closed: what follows a fit must not be logged into it
            raise DriverGone
        return bool(answer["stop"])
