"""A single experiment as one library call: train or resume it, or combine logged models."""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Literal

from mlflow import MlflowClient

from fmnist_exp.backend import interrupts
from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST, load
from fmnist_exp.experiment import checkpoints, resolve
from fmnist_exp.experiment.checkpoints import Interrupted
from fmnist_exp.experiment.outcome import Outcome
from fmnist_exp.experiment.run import run_experiment
from fmnist_exp.export import signing
from fmnist_exp.registry import champions, lineage
from fmnist_exp.registry.versions import Registration
from fmnist_exp.tracking import access, resumption
from fmnist_exp.tracking import models as logged_models
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking.access import StoreAwayError
from fmnist_exp.tracking.names import Tag
from fmnist_exp.training.events import FitCallback

log = logging.getLogger(__name__)

# (name, number of epochs, number of them that an interrupted run has finished) → what follows the fit
Display = Callable[[str, int, int], AbstractContextManager[FitCallback]]


@dataclass(frozen=True)
class Resume:
    """The experiment of an interrupted run, which is continued from its last epoch."""

    run_id: str
    overrides: Mapping[str, str]  # by dotted name; only of fields that do not change the fit


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """A single experiment to run."""

    experiment: ExperimentConfig | Resume
    register: bool = False  # as a version, which is then sent to the gate
    score_test: bool | None = None  # on the test set; None scores baselines, registered models, and what a run resumes
    data: FashionMNIST | None = None  # None loads the images that the experiment names
    offline: bool = False  # send nothing to the tracking store; `fmnist-exp sync` does so later
    run_id: str | None = None  # of an existing run to log to; None starts a new one
    display: Display = lambda name, epochs, done: nullcontext(FitCallback())  # of each fit


@dataclass(frozen=True)
class TrainResult:
    """The result of an experiment that has ended."""

    status: Literal["completed", "interrupted"]  # interrupted by Ctrl-C
    run_id: str
    outcomes: Mapping[str, Outcome]  # by the model's name
    registration: Registration | None = None
    resumable: bool = False  # whether an interrupted run can be resumed


def train(request: TrainRequest) -> TrainResult:
    """Train an experiment, or resume an interrupted one, and score the model on the test set if the request says so.

    Raises RequestError, before a run is started, if the experiment cannot be run, and WorkError if the fit fails; the
    run records the reason.
    """
    experiment, interrupted = request.experiment, None
    if isinstance(experiment, Resume):
        interrupted = checkpoints.find(access.connect(), experiment.run_id)
        experiment = checkpoints.resumed_config(interrupted, experiment.overrides)
    return _train(request, experiment, interrupted)


def ensemble(request: TrainRequest) -> TrainResult:
    """Average the logged models in `model.members`, on the split of the first one; otherwise it is like `train`."""
    assert isinstance(request.experiment, ExperimentConfig)
    split = lineage.find(access.connect(), request.experiment.model.members[0]).split_fields()
    return _train(request, files.override(request.experiment, split))


def _train(request: TrainRequest, config: ExperimentConfig, interrupted: Interrupted | None = None) -> TrainResult:
    signing.check(own_models=request.register)
    data = request.data or load(config.data, config.seed)
    resolved = resolve.resolve(config, data, offline=request.offline)
    if interrupted:
        checkpoints.check_data(interrupted, data)
    config, registration = resolved.config, None
    score_test = request.score_test
    if score_test is None:
        score_test = request.register or bool(interrupted and interrupted.score_test)
    run = _open(resolved.client, config.name, request.run_id, interrupted)
    try:
        with runs.closing(run):
            resolve.log_choice(run, resolved.choice)
            done = interrupted.epochs if interrupted else 0
            with request.display(config.name, config.training.epochs, done) as callback:
                outcome = run_experiment(config, data, run, [callback], score_test=score_test)
            if request.register:
                tags = outcome.version_tags(run, data)
                registration = _register(outcome, tags, run, config, data)
    except KeyboardInterrupt:
        resumable = config.training.checkpoint and checkpoints.can_be_resumed(run)
        interrupts.clear()
        return TrainResult("interrupted", run.id, {}, resumable=resumable)
    return TrainResult("completed", run.id, {config.name: outcome}, registration)


def _open(client: MlflowClient, name: str, run_id: str | None, interrupted: Interrupted | None) -> runs.Run:
    """Start a run, or take over the run `run_id`, or reopen the interrupted run; then `run_id` only refers to it."""
    if interrupted is None:
        return runs.start_run(client, "train", name, name, run_id=run_id)
    if run_id is not None:  # `mlflow run` has made it for this command
        note = f"This run is the command that resumed run {interrupted.run_id}, which has all results.\n"
        runs.Run(client, run_id).set_tags({Tag.RESUMES: interrupted.run_id, Tag.NOTE: note})
    return resumption.reopen(client, interrupted.run_id)


def _register(
    outcome: Outcome, tags: Mapping[str, object], run: runs.Run, config: ExperimentConfig, data: FashionMNIST
) -> Registration | None:
    """Register the model and send it to the gate; without an answer of the store, the version is registered later."""
    with suppress(StoreAwayError), access.needed():
        model_id = logged_models.arrived(run.client, outcome.model_id)
        return champions.register(model_id, run.id, tags, run, config.gate, data)
    champions.register_later(outcome.model_id, run.id, tags, run)
    log.warning(
        "the version is registered when the tracking store gets the run (`fmnist-exp sync` sends it); then"
        " `fmnist-exp promote` sends it to the gate"
    )
    return None
