"""After Ctrl-C or a kill: end the trials that nobody will finish, and close their runs."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow import MlflowClient, entities
from mlflow.exceptions import MlflowException
from optuna import Study
from optuna.trial import TrialState

from fmnist_exp.errors import RequestError, WorkError, is_full_disk
from fmnist_exp.tracking import failures, orphans, ownership, transport
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tracking.redact import without_secrets
from fmnist_exp.tracking.run import Run, Status
from fmnist_exp.tracking.spool import ids
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.record import TrialRecord

STATUS: dict[TrialState, Status] = {
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "KILLED",
    TrialState.FAIL: "FAILED",
}


def finalise(study: Study, parent: Run, reason: str) -> None:
    """Bring every open trial and run of the study to an end. The caller is the study's only driver.

    A trial whose result is recorded ends with that result. The others are cut off, and their settings are queued again.
    Each run gets the status of its trial. Runs that no trial names are deleted, and the parent run of an earlier
    session is closed.

    Args:
        study: the study.
        parent: the parent run of this session, which stays open.
        reason: why the trials did not end by themselves.
    """
    for trial in studies.running(study):
        record = TrialRecord.of(trial)
        if record.outcome is not None:
            study.tell(trial.number, record.outcome["values"], TrialState[record.outcome["state"]])
            continue
        studies.cut_off(study, trial)
        if record.run_id:
            orphans.close(parent, record.run_id, "KILLED", reason, {Tag.TRIAL_STATE: "FAIL"})
    if parent.delivered():  # otherwise the next session does it
        _close_runs(study, parent, reason)
        parent.delivered()


def check(study: Study, client: MlflowClient) -> None:
    """Raise RequestError if the study's runs are in another tracking store."""
    run_ids = [record.run_id for record in map(TrialRecord.of, study.get_trials(deepcopy=False)) if record.run_id]
    try:
        for run_id in run_ids[-1:]:
            if stored := ids.resolve(client, run_id):
                client.get_run(stored)
    except MlflowException as error:
        if not transport.is_missing(error):  # the store cannot be asked, and may well have the runs
            raise
        raise RequestError(
            f"the runs of study {study.study_name!r} are not in this tracking store; use the store that it was made"
            " with, or another study name"
        ) from error


def reattach(study: Study, parent: Run) -> None:
    """Take over the trials of earlier sessions: finalise the open ones, and make all runs children of `parent`."""
    finalise(study, parent, "its driver was killed")
    for trial in study.get_trials(deepcopy=False):
        if run_id := TrialRecord.of(trial).run_id:
            orphans.reattach(parent, run_id)


def full_disk(reason: str) -> OSError:
    """Return an error that `explaining_full_disk` recognises, for a disk that is full on another machine."""
    error = OSError(reason)
    error.errno = errno.ENOSPC
    return error


@contextmanager
def explaining_full_disk(study: str) -> Iterator[None]:
    """Replace any error that a full disk caused by a WorkError with one sentence."""
    try:
        yield
    except Exception as error:  # libraries wrap the system's error in their own
        if not is_full_disk(error):
            raise
        raise WorkError(
            f"the disk is full ({failures.told(error)}); make room and run the command again with --study {study}: all"
            " trials that ended are kept"
        ) from error


def _close_runs(study: Study, parent: Run, reason: str) -> None:
    """Close the runs of this study that the trials and sessions of dead drivers left."""
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    for run in _open_runs(study, parent):
        run_id, kind = run.info.run_id, run.data.tags.get(Tag.KIND)
        if kind == "tune":
            if run_id != parent.id:
                orphans.close(parent, run_id, "KILLED", f"{reason}; continued by run {parent.id}")
            continue
        if kind == "train":  # a refit of the winner, which the next session begins anew
            orphans.close(parent, run_id, "KILLED", reason)
            continue
        trial = trials.get(int(run.data.tags.get(Tag.TRIAL, -1)))
        if trial is None or TrialRecord.of(trial).run_id not in (run_id, run.data.tags.get(Tag.SPOOL_ID)):
            orphans.discard(parent, run_id)
        elif trial.state in STATUS:
            cut = trial.number in study.user_attrs.get(studies.CUT_OFF, [])
            status: Status = "KILLED" if cut else STATUS[trial.state]
            why = TrialRecord.of(trial).error or reason if trial.state == TrialState.FAIL else ""
            orphans.close(parent, run_id, status, why, {Tag.TRIAL_STATE: trial.state.name})


def _open_runs(study: Study, parent: Run) -> list[entities.Run]:
    """Return the runs of this study that nobody has closed, or that another command closed since their driver died.

    A text in MLflow's filters cannot hold both kinds of quotes, so that the filter only narrows the choice.
    """
    name = without_secrets(study.study_name)  # as the tag has it
    similar = re.sub(r"\W", "_", name)  # where `_` stands for any character
    states = "attributes.status = 'RUNNING'", f"tags.`{Tag.ERROR}` LIKE '{ownership.DIED}%'"
    found = [
        run
        for state in states
        for run in parent.client.search_runs([parent.experiment_id], f"tags.`{Tag.STUDY}` LIKE '{similar}' and {state}")
    ]
    return [run for run in found if run.data.tags[Tag.STUDY] == name]
