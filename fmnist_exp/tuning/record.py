"""The records of a search: its experiment and its trials, as the study stores them, and the trials in progress."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from mlflow import MlflowClient
from optuna import Study, Trial
from optuna.trial import FrozenTrial, TrialState

from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tracking.run import Run, Status
from fmnist_exp.tracking.spool import ids

EXPERIMENT = "search"  # user attribute of a study: the experiment that made it, in YAML
EXECUTIONS = 3  # of one trial, when its workers die
LOSSES = 20  # times that a trial's workers may lose touch with the driver
OUTAGES = 20  # executions in a row of one trial that may end because a server does not answer: 17 minutes
WAIT_SECONDS = 60.0  # at most, between two of these executions


@dataclass(frozen=True)
class TrialRecord:
    """The user attributes that a trial has in Optuna, under the names of these fields."""

    run_id: str = ""  # of the execution that counts; a local id if the store was away when it began
    resumes: str = ""  # id of the run that this trial continues: that of a trial that was cut off
    passed: int = 0  # epochs of that run which the study knows; they are not judged a second time
    stopped: int = 0  # epoch after which the driver stopped the trial, early; 0 if it did not
    paused: int = 0  # epoch after which the trial waits, until it deserves to go on; 0 if it does not
    worker: str = ""  # that runs it
    stretches: Sequence[tuple[str, float, float]] = ()  # worker, beginning and end of each part of a trial that paused
    error: str = ""  # why the trial failed
    val_accuracies: Sequence[float] = ()  # of each epoch, in a study that takes no reports
    outcome: Mapping[str, Any] | None = None  # state and values that the study gets next
    model_id: str = ""  # of the logged model, also local if the store was away; empty until there is one
    val_accuracy: float = 0.0  # of the logged model
    parameters: int | None = None
    prediction_seconds: float | None = None
    best_epoch: int | None = None

    @classmethod
    def of(cls, trial: Trial | FrozenTrial) -> Self:
        """Return the record of a trial."""
        names = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in trial.user_attrs.items() if name in names})

    def in_store(self, client: MlflowClient) -> Self:
        """Return the record with the store's ids in place of local ones, except of those that it does not have yet."""
        run_id, model_id = (ids.resolve(client, each) or each for each in (self.run_id, self.model_id))
        return replace(self, run_id=run_id, model_id=model_id)

    def seconds(self, trial: FrozenTrial) -> float:
        """Return the seconds that a trial with this record has run, without its pauses."""
        if self.stretches:
            return sum(end - begin for _, begin, end in self.stretches)
        return trial.duration.total_seconds() if trial.duration else 0.0

    @classmethod
    def write(cls, trial: Trial, **values: object) -> None:
        """Write these fields into the record of a trial."""
        if unknown := values.keys() - {field.name for field in fields(cls)}:
            raise TypeError(f"a trial's record has no {min(unknown)}")
        for name, value in values.items():
            trial.set_user_attr(name, value)


@dataclass(eq=False)
class RunningTrial:
    """A trial in progress, as its driver knows it."""

    trial: Trial
    config: ExperimentConfig
    passed: int = 0  # epochs that its run has from a trial that was cut off
    stopped: int = 0  # epoch after which every execution ends early; 0 unless one was stopped
    executions: int = 0  # that began
    losses: int = 0  # of those, given up by their worker, since the driver was silent for long
    early_deaths: int = 0  # of workers, before the trial began
    outages: int = 0  # executions in a row, without an epoch between them, that ended because a server did not answer
    excused: int = 0  # executions that began and ended for that reason
    wait_until: float = 0.0  # by the search's clock; 0 unless the trial waits for a server
    execution: str = ""  # id of the one that counts; empty until it begins
    address: str = ""  # of its worker
    heard: float = 0.0  # time of its last message, by the search's clock
    run: Run | None = None
    epochs: int = 0  # reported to the study
    logged: int = 0  # epochs when it paused last, in this session
    begun: float = 0.0  # time of the first execution, or of the first one after a pause, by time.time
    best: float = -math.inf  # accuracy of these epochs
    rung: int = 0  # of successive halving that the trial reached last, in epochs
    at_rung: float = -math.inf  # highest accuracy up to there

    @property
    def number(self) -> int:
        """The trial's number in its study."""
        return self.trial.number

    @property
    def hopeless(self) -> str:
        """The reason why the trial is not retried; empty if it may be retried."""
        if self.losses == LOSSES:
            return f"its workers lost touch with the driver {LOSSES} times"
        if self.executions + self.early_deaths - self.losses - self.excused >= EXECUTIONS:
            return f"its worker died {EXECUTIONS} times: killed, or over its memory limit"
        return ""

    @property
    def interruption(self) -> str:
        """The reason why the last execution did not come to its end."""
        if self.outages:
            return "a server did not answer"
        return "its worker lost touch with the driver" if self.losses else "its worker died"

    def wait(self, now: float, reason: str) -> None:
        """Let the trial wait for a server that does not answer, longer each time, since its setting is not to blame.

        Raises WorkError if the server has not answered for too long.
        """
        self.outages += 1
        self.excused += bool(self.execution)
        if self.outages == OUTAGES:
            raise WorkError(f"a server did not answer {OUTAGES} executions of trial {self.number} in a row: {reason}")
        self.execution, self.wait_until = "", now + min(WAIT_SECONDS, 2**self.outages)

    def ends_wait(self, now: float) -> bool:
        """Return True once, when the trial has waited long enough."""
        if over := 0 < self.wait_until <= now:
            self.wait_until = 0
        return over

    def note_stretch(self) -> None:
        """Record the part of the trial that ends now."""
        record = TrialRecord.of(self.trial)
        TrialRecord.write(self.trial, stretches=[*record.stretches, (record.worker, self.begun, time.time())])

    def pause(self) -> None:
        """Let the trial wait as if it had not begun, in its run, which stays open."""
        self.note_stretch()
        self.logged = self.epochs
        self.execution, self.executions = "", 0
        self.losses = self.early_deaths = self.outages = self.excused = 0
        if self.run is not None:
            self.run.set_tags({Tag.TRIAL_STATE: "PAUSED"})
            self.run.release()

    def close_run(self, status: Status, reason: str = "", tags: Mapping[str, object] | None = None) -> None:
        """Close the run, if the trial has one."""
        if self.run is not None:
            self.run.status = status
            self.run.set_tags({**(tags or {}), **({Tag.ERROR: reason} if reason else {})})
            self.run.close()


def is_paused(trial: FrozenTrial) -> bool:
    """Return whether a trial waits until it deserves to go on; a sampler can learn from it."""
    return trial.state == TrialState.RUNNING and bool(trial.user_attrs.get("paused"))


def as_pruned(trial: FrozenTrial) -> FrozenTrial:
    """Return a paused trial as one that was pruned, and any other trial as it is, for samplers of Optuna."""
    if not is_paused(trial):
        return trial
    pruned = copy.copy(trial)
    pruned.state = TrialState.PRUNED
    return pruned


def experiment_of(study: Study) -> ExperimentConfig | None:
    """Return the experiment that a study was created with, or None if the study has not stored it.

    Raises:
        RequestError: the study was made by a version of this package whose experiments this one cannot read.
    """
    stored = study.user_attrs.get(EXPERIMENT)
    if not stored:
        return None
    try:
        if isinstance(stored, str):
            return files.parse_logged(stored, study.study_name)
        return _from_dotted(stored)
    except RequestError as error:
        raise RequestError(
            f"study {study.study_name!r} was made by another version of fmnist-exp, which this one cannot resume"
            f" ({error}); choose another study name"
        ) from error


def _from_dotted(stored: Mapping[str, object]) -> ExperimentConfig:
    """Return the experiment that a study stored before it stored YAML: a dictionary of dotted names."""
    own = {name: value for name, value in stored.items() if not name.startswith("search.")}
    own = {"training.precision": "float32", "data.gate_fraction": 0, **own}  # as in those versions
    space: dict[str, dict[str, object]] = {}
    for name in [name for name in stored if name.startswith("search.space.")]:
        field, _, limit = name.removeprefix("search.space.").rpartition(".")
        space.setdefault(field, {})[limit] = stored[name]
    searched = files.override(ExperimentConfig(), {**own, "search.space": space})
    rest = stored.keys() - own.keys()
    return files.override(searched, {name: stored[name] for name in rest if not name.startswith("search.space.")})
