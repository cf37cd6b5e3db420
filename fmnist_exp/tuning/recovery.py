"""Trials that nobody will go on with, after Ctrl-C or a kill: told to the study, their runs closed, none left open."""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from fmnist_exp.errors import RequestError
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
                _close(parent.client, run_id, "KILLED", "FAIL", reason)
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
    from mlflow.exceptions import MlflowException

    settle(study, parent, "its driver was killed")
    for trial in study.get_trials(deepcopy=False):
        if run_id := trial.user_attrs.get("run_id"):
            try:
                parent.client.set_tag(run_id, "mlflow.parentRunId", parent.id)
            except MlflowException:  # a run that somebody deleted has no parent
                if parent.client.get_run(run_id).info.lifecycle_stage != "deleted":
                    raise


def full_disk(reason: str) -> OSError:
    """What a disk that is full elsewhere raises here."""
    error = OSError(reason)
    error.errno = errno.ENOSPC
    return error


def discard(client: MlflowClient, run_id: str) -> None:
    """Delete the run of an execution that was given up, and what it had logged of a model."""
    run = client.get_run(run_id)
    of_run = f"source_run_id = '{run_id}'"
    for model in client.search_logged_models([run.info.experiment_id], filter_string=of_run):
        client.delete_logged_model(model.model_id)
    client.set_terminated(run_id, "KILLED")
    client.delete_run(run_id)  # an execution that is alive after all cannot write into it


def _close_runs(study: Study, parent: Run, reason: str) -> None:
    """Close the runs of this study that MLflow still calls running."""
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    quote = '"' if "'" in study.study_name else "'"
    query = f"tags.`fmnist.study` = {quote}{study.study_name}{quote} and attributes.status = 'RUNNING'"
    for run in parent.client.search_runs([parent.experiment_id], query):
        run_id = run.info.run_id
        if run.data.tags.get("fmnist.kind") == "tune":
            if run_id != parent.id:
                parent.client.set_tag(run_id, "fmnist.error", f"{reason}; continued by run {parent.id}")
                parent.client.set_terminated(run_id, "KILLED")
            continue
        if run.data.tags.get("fmnist.kind") == "train":  # the winner, fitted again: the next session begins anew
            parent.client.set_tag(run_id, "fmnist.error", reason)
            parent.client.set_terminated(run_id, "KILLED")
            continue
        trial = trials.get(int(run.data.tags.get("fmnist.trial", -1)))
        if trial is None or trial.user_attrs.get("run_id") != run_id:
            discard(parent.client, run_id)
        elif trial.state in STATUS:
            cut = trial.number in study.user_attrs.get(studies.CUT_OFF, [])
            _close(
                parent.client, run_id, "KILLED" if cut else STATUS[trial.state], trial.state.name, _why(trial, reason)
            )


def _why(trial: FrozenTrial, reason: str) -> str:
    return "" if trial.state != TrialState.FAIL else str(trial.user_attrs.get("error", reason))


def _close(client: MlflowClient, run_id: str, status: str, state: str, reason: str) -> None:
    client.set_tag(run_id, "fmnist.trial_state", state)
    if reason:
        client.set_tag(run_id, "fmnist.error", reason)
    client.set_terminated(run_id, status)
