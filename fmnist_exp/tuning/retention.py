"""Which trials keep their weights when a search has ended: the best, the front, and what a version rests on."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from fmnist_exp.errors import WorkError
from fmnist_exp.registry import model_files
from fmnist_exp.tracking.names import LoggedModelTag
from fmnist_exp.tuning import objectives
from fmnist_exp.tuning import study as studies

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from optuna import Study
    from optuna.trial import FrozenTrial

DELETED = "weights_deleted"  # user attribute of the study: numbers of the trials whose weights are gone


@dataclass(frozen=True)
class Retention:
    """Trials whose weights stayed, how many were deleted now, and why it stopped there, if it did."""

    kept: tuple[int, ...]
    deleted: int
    reason: str = ""


def apply(study: Study, keep: int, client: MlflowClient) -> Retention:
    """Delete the weights of all trials but the best `keep`, the Pareto front and those that a version rests on.

    Done again after it was cut off, it goes on. Where the artifact store refuses it stops, and says why: a search that
    found and registered its winner has not failed.
    """
    ranked = studies.ranked(study)
    versions = model_files.needed_by_versions(client)
    kept = _kept(study, ranked, keep, *versions)
    gone = list(study.user_attrs.get(DELETED, []))
    before, reason = len(gone), ""
    try:
        for model_id in _strays(study, client, *versions):
            model_files.delete(client, model_id, f"search.keep={keep}")
        for trial in ranked:
            if trial.number not in kept and trial.number not in gone:
                model_files.delete(client, trial.user_attrs["model_id"], f"search.keep={keep}")
                gone.append(trial.number)
    except WorkError as error:
        reason = str(error)
    finally:
        study.set_user_attr(DELETED, gone)
    stayed = tuple(trial.number for trial in ranked if trial.number not in gone)
    return Retention(stayed, len(gone) - before, reason)


def _strays(study: Study, client: MlflowClient, models: set[str], runs: set[str]) -> list[str]:
    """Models of trials that failed, or were cut off, after they had logged one; without those of a version."""
    from mlflow.exceptions import MlflowException

    found: list[Any] = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.FAIL,)):
        run_id = trial.user_attrs.get("run_id")
        if run_id and run_id not in runs:
            with suppress(MlflowException):  # somebody deleted the run for good
                experiment_id = client.get_run(run_id).info.experiment_id
                found += client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'")
    return [
        model.model_id for model in found if model.model_id not in models and LoggedModelTag.WEIGHTS not in model.tags
    ]


def _kept(study: Study, ranked: list[FrozenTrial], keep: int, models: set[str], runs: set[str]) -> set[int]:
    resting = [
        trial for trial in ranked if trial.user_attrs["model_id"] in models or trial.user_attrs["run_id"] in runs
    ]
    return {trial.number for trial in (*ranked[:keep], *objectives.front(study), *resting)}
