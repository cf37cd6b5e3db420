"""A trial in the process that runs it, the driver's or a worker's: it trains and reports, and the driver decides."""

from __future__ import annotations

import functools
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dask.system import cpu_count

from fmnist_exp.backend import interrupts, setup
from fmnist_exp.config.files import override
from fmnist_exp.config.schema import DataConfig, ExperimentConfig
from fmnist_exp.data import dataset
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError, WorkError, is_full_disk
from fmnist_exp.experiment import checkpoints
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.experiment.conditions import code_digest
from fmnist_exp.export import signing
from fmnist_exp.tracking import access, failures, resumption, store, transport
from fmnist_exp.tracking.names import Metric
from fmnist_exp.tracking.run import Run
from fmnist_exp.tracking.spool.process import sender
from fmnist_exp.training import precision, speed
from fmnist_exp.training.events import Checkpoint, Epoch, FitCallback
from fmnist_exp.tuning import objectives
from fmnist_exp.tuning.plan import EPOCHS
from fmnist_exp.tuning.workers import messages
from fmnist_exp.tuning.workers.messages import Abandoned, Channel, EpochEnd, TrialResult, Verdict

PROGRESS_SECONDS = 0.5  # between two reports of steps

log = logging.getLogger(__name__)

Objective = Callable[[ExperimentConfig, FashionMNIST, Run, Sequence[FitCallback]], TrialResult]


@dataclass(frozen=True)
class Requirements:
    """The conditions that a worker must meet to run the trials of a search."""

    tracking_uri: str
    data: DataConfig
    seed: int  # of the split
    digests: tuple[str, str]  # of the training and the validation images
    code: str  # digest of the package
    signer: str  # public key that the models must be signed with; empty if they need no signature
    offline: bool  # the tracking store gets everything later

    @property
    def keeps_states(self) -> bool:
        """Whether a trial may pause: another execution can read the state of its training."""
        return not self.offline and checkpoints.are_trusted()


@dataclass(frozen=True)
class Task:
    """One trial as it is sent to a worker. It is safe to run twice: a later execution continues an earlier one.

    Attributes:
        number: number of the trial.
        config: the experiment with the trial's setting, without the search.
        objective: the function that runs the trial.
        requirements: the conditions that a worker must meet.
        timed: the experiment whose steps the worker times before the trial begins, for the plan of the search.
        cores: `core_set()` of each worker by its address; workers with the same set share its cores.
        threads: number of threads to compute with; None stands for the worker's share of its cores.
    """

    number: int
    config: ExperimentConfig
    objective: Objective
    requirements: Requirements
    timed: ExperimentConfig | None = None
    cores: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None


def train(
    config: ExperimentConfig,
    data: FashionMNIST,
    run: Run,
    callbacks: Sequence[FitCallback],
    names: Sequence[str] = ("val_accuracy",),
) -> TrialResult:
    """Run the experiment without scoring the test set, and measure the objectives with these names."""
    outcome = experiment_run.run_experiment(config, data, run, callbacks, score_test=False)
    assert outcome.validation is not None  # a search refuses data.validation_fraction=0
    seconds = None
    if "prediction_seconds" in names:
        seconds = objectives.prediction_seconds(outcome.model_id, data.validation.images)
        run.log_metrics({Metric.PREDICTION_SECONDS: seconds})
    return TrialResult(
        stopped=outcome.fit.stopped_by_callback,
        val_accuracy=outcome.validation.accuracy,
        parameters=outcome.parameters,
        prediction_seconds=seconds,
        model_id=outcome.model_id,
        best_epoch=outcome.fit.best.number,
    )


def run_here(task: Task, channel: Channel, data: FashionMNIST, slow: str = "") -> None:
    """Run the trial with these images. Raises Abandoned if nobody wants the result any more.

    `slow` is the reason why this process computes slowly in the trial's precision, for the driver.
    """
    answer = channel.ask(messages.Started(channel.worker, channel.address, slow, _time(task.timed, data)))
    if not isinstance(answer, messages.Begin):
        return
    config = override(task.config, {EPOCHS: answer.epochs})
    try:
        run = Run(access.client(), answer.run)
        try:
            if answer.resumed:
                resumption.continue_curves(run)
                run.epochs = answer.logged
            reporter = _Reporter(channel, run)
            result = task.objective(config, data, run, [reporter])
        finally:
            run.release()
    except Abandoned:
        raise
    except _Paused:
        channel.send(messages.Paused())
    except Exception as error:  # whatever broke this setting, the search continues with the next one
        interrupts.check()  # a library may have replaced an interrupt by an error of its own
        if failures.debugging():
            log.warning("trial %d failed", task.number, exc_info=error)
        full, reason = is_full_disk(error), failures.reason_of(error)
        if full:  # the driver says what to do
            channel.send(messages.Failed(failures.told(error), full_disk=True))
        else:
            channel.send(messages.Unreachable(reason) if transport.is_lost(error) else messages.Failed(reason))
    else:
        channel.send(messages.Paused() if reporter.pausing else messages.Finished(result))


def _time(config: ExperimentConfig | None, data: FashionMNIST) -> float | None:
    """Return the seconds that the steps of an epoch of this experiment take here; None if that cannot be known."""
    if config is None:
        return None
    try:
        return speed.epoch_seconds(config, data)
    except Exception as error:  # whatever it is, it would break the trial too, which says so
        interrupts.check()  # a library may have replaced an interrupt by an error of its own
        log.debug("the steps of %s could not be timed", config.name, exc_info=error)
        return None


def run_on_worker(task: Task, channel: Channel) -> None:
    """Run the trial with this worker's own copy of the images, which must equal the driver's."""
    failures.install()  # on a remote worker; local ones have done it
    siblings = list(task.cores.values()).count(core_set())
    setup.start(task.threads or max(1, cpu_count() // max(1, siblings)))
    try:
        data = _load(task.requirements)
    except (RequestError, WorkError) as error:
        reason = f"worker {channel.worker}: {error}"
        channel.send(messages.Unreachable(reason) if transport.is_lost(error) else messages.Unfit(reason))
        return
    is_remote = task.threads is None  # this machine's own workers have the driver's processor
    run_here(task, channel, data, precision.slowness(task.config.training.precision) if is_remote else "")


def complaint(requirements: Requirements) -> str:
    """Return the reason why trials cannot run on this worker, or an empty text if they can."""
    try:
        _load(requirements)
        if not requirements.offline:
            store.connect()
    except Exception as error:  # whatever it is, it would break trials too
        return failures.reason_of(error)
    return ""


def core_set() -> str:
    """Return a name for the cores that this process may use; processes with the same name share them."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return " ".join([platform.node(), *map(str, sorted(usable))])


def requirements_of(config: ExperimentConfig, data: FashionMNIST) -> Requirements:
    """Return the conditions that a worker must meet for the trials of this search."""
    seed = config.seed if config.data.split_seed is None else config.data.split_seed
    digests = data.train.digest, data.validation.digest
    return Requirements(store.address(), config.data, seed, digests, code_digest(), signing.signer(), sender().offline)


@functools.lru_cache(maxsize=1)  # a worker does this once, for its first trial
def _load(requirements: Requirements) -> FashionMNIST:
    """Use the driver's tracking store, which need not answer now, and its images. Raises RequestError or WorkError."""
    if requirements.code != code_digest():
        raise RequestError(
            f"another version of fmnist_exp (code {code_digest()}, the driver's is {requirements.code});"
            " install the same one everywhere"
        )
    if not signing.is_signer(requirements.signer):
        raise RequestError(f"{signing.SIGNING_KEY} does not name the driver's key here, so its models would be refused")
    store.use(requirements.tracking_uri)
    sender().offline = requirements.offline
    data = dataset.load(requirements.data, requirements.seed)
    if (data.train.digest, data.validation.digest) != requirements.digests:
        raise RequestError(f"the images from {data.source} are not the driver's; is data.source the same everywhere?")
    return data


class _Paused(Exception):  # noqa: N818 — it is no error of the trial
    """The training has paused after an epoch, and its state was kept."""


class _Reporter(FitCallback):
    """Callback that reports each epoch, and now and then the steps. The driver's verdict may stop or pause the fit."""

    def __init__(self, channel: Channel, run: Run) -> None:
        self.channel, self.run = channel, run
        self.reported = 0.0  # when steps were reported last, by time.monotonic
        self.pausing = False  # the driver wants the trial to pause; an objective without checkpoints begins again

    def on_step(self, epoch: int, step: int, steps: int) -> None:
        if time.monotonic() - self.reported > PROGRESS_SECONDS:
            self.reported = time.monotonic()
            self.channel.send(messages.Progress(epoch - 1 + step / steps))

    def on_epoch(self, epoch: Epoch) -> bool:
        verdict = self.channel.ask(EpochEnd(epoch.number, float(epoch.metrics["val_accuracy"])))
        # if the store does not get the state, the trial had better go on
        self.pausing = verdict is Verdict.PAUSE and self.run.delivered()
        return self.pausing or verdict is Verdict.STOP

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        if self.pausing:
            checkpoints.keep(self.run, replace(checkpoint.state(), stopped_by_callback=False))
            raise _Paused
