"""Retention: at the end of a search, delete the weights of trials that are not among the best and are not needed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from fmnist_exp.errors import WorkError
from fmnist_exp.export import packaging
from fmnist_exp.registry import versions
from fmnist_exp.tracking import models as logged_models
from fmnist_exp.tracking.names import LoggedModelTag
from fmnist_exp.tuning import objectives
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.record import TrialRecord

DELETED = "weights_deleted"  # user attribute of the study: numbers of the trials whose weights are gone


@dataclass(frozen=True)
class Retention:
    """The numbers of the trials that keep their weights, and how many trials' weights were deleted now."""

    kept: tuple[int, ...]
    deleted: int
    reason: str = ""  # why not all were deleted, if so


def apply(study: Study, keep: int, client: MlflowClient) -> Retention:
    """Delete the weights of all trials but the best `keep`, the Pareto front and those that a version needs.

    After an interruption, the next call continues. If the artifact store refuses to delete, the reason is returned and
    no error is raised, because the search itself has succeeded.
    """
    ranked = studies.ranked(study)
    models, runs = versions.needed(client)
    kept = _kept(study, ranked, keep, models, runs)
    gone = list(study.user_attrs.get(DELETED, []))
    before, reason = len(gone), ""
    try:
        for model_id in _strays(study, client, models, runs):
            logged_models.delete_files(client, model_id, packaging.WEIGHTS, f"search.keep={keep}")
        for trial in ranked:
            if trial.number not in kept and trial.number not in gone:
                model_id = TrialRecord.of(trial).model_id
                logged_models.delete_files(client, model_id, packaging.WEIGHTS, f"search.keep={keep}")
                gone.append(trial.number)
    except WorkError as error:
        reason = str(error)
    finally:
        study.set_user_attr(DELETED, gone)
    stayed = tuple(trial.number for trial in ranked if trial.number not in gone)
    return Retention(stayed, len(gone) - before, reason)


def _strays(study: Study, client: MlflowClient, models: set[str], runs: set[str]) -> list[str]:
    """Return the models of trials that failed or were cut off, except the models that a version needs."""
    found: list[LoggedModel] = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
        run_id = TrialRecord.of(trial).run_id
        if run_id and run_id not in runs:
            with suppress(MlflowException):  # somebody deleted the run for good
                experiment_id = client.get_run(run_id).info.experiment_id
                found += client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'")
    return [
        model.model_id for model in found if model.model_id not in models and LoggedModelTag.WEIGHTS not in model.tags
    ]


def _kept(study: Study, ranked: list[FrozenTrial], keep: int, models: set[str], runs: set[str]) -> set[int]:
    records = {trial.number: TrialRecord.of(trial) for trial in ranked}
    needed = {number for number, record in records.items() if record.model_id in models or record.run_id in runs}
    return needed | {trial.number for trial in (*ranked[:keep], *objectives.front(study))}
