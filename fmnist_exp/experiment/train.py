"""A single experiment as one library call: train or resume it, combine logged models, or run the baselines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

from fmnist_exp.backend import interrupts
from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data import dataset
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.experiment import baseline, checkpoints, resolve
from fmnist_exp.experiment.checkpoints import Interrupted
from fmnist_exp.experiment.outcome import Outcome
from fmnist_exp.experiment.resolve import Resolved
from fmnist_exp.experiment.run import run_experiment
from fmnist_exp.registry import gate, lineage
from fmnist_exp.registry.versions import Registration
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store
from fmnist_exp.tracking.run import Run
from fmnist_exp.training import fit as fitting
from fmnist_exp.training.events import FitCallback

# (name, number of epochs, number of them that an interrupted run has finished) → what follows the fit
Display = Callable[[str, int, int], AbstractContextManager[FitCallback]]


@dataclass(frozen=True)
class Resume:
    """The experiment of an interrupted run, which a new run continues from its last epoch."""

    run_id: str
    overrides: Mapping[str, str]  # by dotted name; only of fields that do not change the fit


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """A single experiment to run.

    Attributes:
        experiment: the experiment, or the interrupted run to resume.
        register: register the model as a version and let the gate decide on it.
        data: the images of the experiment; None loads them.
        run_id: id of an existing run to log to; None starts a new one.
        display: makes what follows each fit.
    """

    experiment: ExperimentConfig | Resume
    register: bool = False
    data: FashionMNIST | None = None
    run_id: str | None = None
    display: Display = lambda name, epochs, done: nullcontext(FitCallback())


@dataclass(frozen=True)
class TrainResult:
    """An experiment that ended. `status` is "interrupted" after Ctrl-C; `resumable` says whether it can be resumed."""

    status: Literal["completed", "interrupted"]
    run_id: str
    outcomes: Mapping[str, Outcome]  # by the model's name
    registration: Registration | None = None
    resumable: bool = False


def train(request: TrainRequest) -> TrainResult:
    """Train an experiment, or resume an interrupted one, and score the model on the test set.

    Raises:
        RequestError: the experiment cannot be run; no run was started.
        WorkError: the fit failed; the run says why.
    """
    experiment, interrupted = request.experiment, None
    if isinstance(experiment, Resume):
        interrupted = checkpoints.find(store.connect(), experiment.run_id)
        experiment = checkpoints.resumed_config(interrupted, experiment.overrides)
    data = request.data or dataset.load(experiment.data, experiment.seed)
    resolved = resolve.resolve(experiment, data)
    if interrupted:
        checkpoints.check_data(interrupted, data)
    return _train(request, resolved, data, interrupted)


def ensemble(request: TrainRequest) -> TrainResult:
    """Average the logged models `model.members`, with the images split as for the first of them; see `train`."""
    assert isinstance(request.experiment, ExperimentConfig)
    split = lineage.find(store.connect(), request.experiment.model.members[0]).split_fields()
    config = files.override(request.experiment, split)
    data = request.data or dataset.load(config.data, config.seed)
    return _train(request, resolve.resolve(config, data), data)


def baselines(request: TrainRequest) -> TrainResult:
    """Run the naive guess, logistic regression and the smallest network as child runs of one run."""
    assert isinstance(request.experiment, ExperimentConfig)
    data = request.data or dataset.load(request.experiment.data, request.experiment.seed)
    resolved = resolve.resolve(request.experiment, data)
    with runs.closing(_start(request, "baseline", resolved)) as run:
        resolve.log_choice(run, resolved.choice)
        outcomes = baseline.run_baselines(resolved.config, data, run, request.display)
    return TrainResult("completed", run.id, outcomes)


def _train(
    request: TrainRequest, resolved: Resolved, data: FashionMNIST, interrupted: Interrupted | None = None
) -> TrainResult:
    config, registration, done = resolved.config, None, 0
    run = _start(request, "train", resolved)
    try:
        with runs.closing(run):
            resolve.log_choice(run, resolved.choice)
            if interrupted:
                checkpoints.take_over(interrupted, run)
                done = len(interrupted.state.epochs)
            fit = partial(fitting.fit, start=interrupted.state if interrupted else None)
            with request.display(config.name, config.training.epochs, done) as callback:
                outcome = run_experiment(config, data, run, [callback], score_test=True, fit=fit)
            if request.register:
                tags = outcome.version_tags(run, data)
                registration = gate.register(outcome.model_id, run.id, tags, run, config, data)
    except KeyboardInterrupt:
        interrupts.clear()
        resumable = config.training.checkpoint and checkpoints.can_be_resumed(run)
        return TrainResult("interrupted", run.id, {}, resumable=resumable)
    return TrainResult("completed", run.id, {config.name: outcome}, registration)


def _start(request: TrainRequest, kind: Literal["train", "baseline"], resolved: Resolved) -> Run:
    name = resolved.config.name
    return runs.start_run(resolved.client, kind, name, name, run_id=request.run_id)
