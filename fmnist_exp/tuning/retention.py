"""Retention: at the end of a search, delete the weights of trials that are not among the best and are not needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.exceptions import MlflowException
from optuna import Study
from optuna.trial import TrialState

from fmnist_exp.errors import WorkError
from fmnist_exp.export import packaging
from fmnist_exp.registry import versions
from fmnist_exp.tracking import models as logged_models
from fmnist_exp.tracking.names import LoggedModelTag
from fmnist_exp.tracking.spool import ids
from fmnist_exp.tuning import objectives
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.record import TrialRecord

DELETED = "weights_deleted"  # user attribute of the study: numbers of the trials whose weights are gone
PATIENCE = 3  # models whose files the store refuses to delete, after which no others are tried


@dataclass(frozen=True)
class Retention:
    """The numbers of the trials that keep their weights, and how many trials' weights were deleted now."""

    kept: tuple[int, ...]
    deleted: int
    reason: str = ""  # why not all were deleted, if so


@dataclass(frozen=True)
class Plan:
    """The logged models whose weights a study does not need: those of trials by number, and of failed trials."""

    trials: Mapping[int, str]
    strays: Sequence[str]

    @property
    def models(self) -> list[str]:
        """The ids of all of them."""
        return [*self.strays, *self.trials.values()]


def plan(study: Study, keep: int, client: MlflowClient) -> Plan:
    """Return the weights that `apply` would delete."""
    ranked = studies.ranked(study)
    models, runs = versions.needed(client)
    records = {trial.number: TrialRecord.of(trial).in_store(client) for trial in ranked}
    needed = {number for number, record in records.items() if record.model_id in models or record.run_id in runs}
    done = needed.union(study.user_attrs.get(DELETED, []))
    done |= {trial.number for trial in (*ranked[:keep], *objectives.front(study))}
    trials = {number: record.model_id for number, record in records.items() if number not in done}
    return Plan(trials, _strays(study, client, models, runs))


def apply(study: Study, keep: int, client: MlflowClient, reason: str = "") -> Retention:
    """Delete the weights of all trials but the best `keep`, the Pareto front and those that a version needs.

    After an interruption, the next call continues. If the artifact store refuses to delete, the first problem is
    returned and no error is raised, because the search itself has succeeded.

    Args:
        study: the study.
        keep: number of the best trials whose weights stay.
        client: the client of the store.
        reason: why the weights are deleted, for the tags of the models; by default, `search.keep`.
    """
    planned = plan(study, keep, client)
    before = study.user_attrs.get(DELETED, [])
    gone, problems = [], []
    owners = [*((None, model_id) for model_id in planned.strays), *planned.trials.items()]
    try:
        for number, model_id in owners:
            try:
                logged_models.delete_files(client, model_id, packaging.WEIGHTS, reason or f"search.keep={keep}")
            except WorkError as error:
                problems.append(str(error))
                if len(problems) == PATIENCE:
                    break
            else:
                gone += [] if number is None else [number]
    finally:
        study.set_user_attr(DELETED, [*before, *gone])
    deleted = {*before, *gone}
    stayed = tuple(trial.number for trial in studies.ranked(study) if trial.number not in deleted)
    return Retention(stayed, len(gone), problems[0] if problems else "")


def _strays(study: Study, client: MlflowClient, models: set[str], runs: set[str]) -> list[str]:
    """Return the models of trials that failed or were cut off, except the models that a version needs."""
    found: list[LoggedModel] = []
    trials = study.get_trials(deepcopy=False)
    continued = {TrialRecord.of(trial).run_id for trial in trials if trial.state != TrialState.FAIL}
    for given_up in sorted({TrialRecord.of(trial).run_id for trial in trials} - continued):
        run_id = ids.resolve(client, given_up)
        if run_id and run_id not in runs:
            with suppress(MlflowException):  # somebody deleted the run for good
                experiment_id = client.get_run(run_id).info.experiment_id
                found += client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'")
    return [
        model.model_id for model in found if model.model_id not in models and LoggedModelTag.WEIGHTS not in model.tags
    ]
