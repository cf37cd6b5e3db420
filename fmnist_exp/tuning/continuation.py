"""The one run of a trial: a new one, or the one that an earlier execution began, perhaps under an earlier driver."""

from __future__ import annotations

from contextlib import suppress

from mlflow.exceptions import MlflowException

from fmnist_exp.tracking import resumption
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking.names import Metric, Tag
from fmnist_exp.tracking.run import Run
from fmnist_exp.tracking.spool import ids
from fmnist_exp.tracking.spool.process import sender
from fmnist_exp.tuning.record import RunningTrial, TrialRecord


def open_run(entry: RunningTrial, parent: Run, experiment: str) -> tuple[Run, bool]:
    """Open the run of a trial as a child of `parent`, and return it, and True if the trial continues in it.

    A new run replaces one of an earlier driver that somebody deleted, or that cannot be reached now.
    """
    if entry.run is not None:  # only its worker died
        resumption.count(entry.run)
        return entry.run, True
    trial = entry.trial
    name = f"trial {trial.number}"
    tags: dict[str, str] = {Tag.STUDY: trial.study.study_name, Tag.TRIAL: str(trial.number)}
    record = TrialRecord.of(trial)
    if not sender().offline and (earlier := record.run_id or record.resumes):
        TrialRecord.write(trial, run_id=earlier)  # before the run names the trial: a kill may come in between
        with suppress(MlflowException):
            if stored := ids.resolve(parent.client, earlier):
                own: dict[str, str] = {Tag.PARENT: parent.id, Tag.NAME: name}
                taken = resumption.take(parent.client, stored, {**tags, **own})
                taken.log_metrics({Metric.TRIAL: trial.number})
                return taken, True
    run = runs.start_run(parent.client, "trial", name, experiment, parent, more_tags=tags)
    TrialRecord.write(trial, run_id=run.id)
    run.log_metrics({Metric.TRIAL: trial.number})
    return run, False
