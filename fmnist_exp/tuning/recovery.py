"""Trials that nobody will go on with, after Ctrl-C or a kill: told to the study, their runs closed, none left open."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from fmnist_exp.errors import RequestError, WorkError, is_full_disk
from fmnist_exp.tracking import finished
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tracking.redact import first_line
from fmnist_exp.tracking.run import Run, Status
from fmnist_exp.tuning import study as studies

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from optuna import Study
    from optuna.trial import FrozenTrial

STATUS: dict[TrialState, Status] = {
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "KILLED",
    TrialState.FAIL: "FAILED",
}
OUTCOME = "outcome"  # what a trial is about to be told with: a driver that is killed then has lost nothing


def settle(study: Study, parent: Run, reason: str) -> None:
    """Bring every open trial and run of the study to an end. The caller is the study's only driver.

    A trial whose result was on its way is told; others are cut off, and their settings queued again. Runs get the
    status of their trial; one that no trial knows is deleted, and an earlier session's parent is closed.
    """
    for trial in studies.running(study):
        if OUTCOME in trial.user_attrs:
            outcome = trial.user_attrs[OUTCOME]
            study.tell(trial.number, outcome["values"], TrialState[outcome["state"]])
            continue
        studies.cut_off(study, trial)
        if run_id := trial.user_attrs.get("run_id"):
            with suppress(Exception):  # the run may be of another store, which is noticed elsewhere
                finished.close(parent.client, run_id, "KILLED", reason, {Tag.TRIAL_STATE: "FAIL"})
    _close_runs(study, parent, reason)


def check(study: Study, client: MlflowClient) -> None:
    """Raise RequestError if the study's runs are in another tracking store."""
    from mlflow.exceptions import MlflowException

    runs = [trial.user_attrs["run_id"] for trial in study.get_trials(deepcopy=False) if "run_id" in trial.user_attrs]
    try:
        for run_id in runs[-1:]:
            client.get_run(run_id)
    except MlflowException as error:
        raise RequestError(
            f"the runs of study {study.study_name!r} are not in this tracking store; use the store that it was made"
            " with, or another study name"
        ) from error


def adopt(study: Study, parent: Run) -> None:
    """Take over an earlier session's trials: close what a kill left open, make all runs children of `parent`."""
    settle(study, parent, "its driver was killed")
    for trial in study.get_trials(deepcopy=False):
        if run_id := trial.user_attrs.get("run_id"):
            finished.reattach(parent.client, run_id, parent.id)


def full_disk(reason: str) -> OSError:
    """What a disk that is full elsewhere raises here."""
    error = OSError(reason)
    error.errno = errno.ENOSPC
    return error


@contextmanager
def explaining_full_disk(study: str) -> Iterator[None]:
    """Raise WorkError with one sentence in place of any error that a full disk caused."""
    try:
        yield
    except Exception as error:  # libraries wrap the system's error in their own
        if not is_full_disk(error):
            raise
        raise WorkError(
            f"the disk is full ({first_line(error)}); make room and run the command again with --study {study}: all"
            " trials that ended are kept"
        ) from error


def _close_runs(study: Study, parent: Run, reason: str) -> None:
    """Close the runs of this study that MLflow still calls running."""
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    quote = '"' if "'" in study.study_name else "'"
    query = f"tags.`fmnist.study` = {quote}{study.study_name}{quote} and attributes.status = 'RUNNING'"
    for run in parent.client.search_runs([parent.experiment_id], query):
        run_id = run.info.run_id
        if run.data.tags.get("fmnist.kind") == "tune":
            if run_id != parent.id:
                finished.close(parent.client, run_id, "KILLED", f"{reason}; continued by run {parent.id}")
            continue
        if run.data.tags.get("fmnist.kind") == "train":  # the winner, fitted again: the next session begins anew
            finished.close(parent.client, run_id, "KILLED", reason)
            continue
        trial = trials.get(int(run.data.tags.get("fmnist.trial", -1)))
        if trial is None or trial.user_attrs.get("run_id") != run_id:
            finished.discard(parent.client, run_id)
        elif trial.state in STATUS:
            cut = trial.number in study.user_attrs.get(studies.CUT_OFF, [])
            status: Status = "KILLED" if cut else STATUS[trial.state]
            state = {Tag.TRIAL_STATE: trial.state.name}
            finished.close(parent.client, run_id, status, _why(trial, reason), state)


def _why(trial: FrozenTrial, reason: str) -> str:
    return "" if trial.state != TrialState.FAIL else str(trial.user_attrs.get("error", reason))
