"""Find what nobody needs any more in the tracking store, in its studies and in the spool, and delete it.

Everything that a registered version needs stays, and so does everything of a run or a study that is in progress.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

import optuna
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from mlflow.exceptions import MlflowException
from optuna import Study

from fmnist_exp.errors import RequestError, WorkError, is_full_disk
from fmnist_exp.export import packaging
from fmnist_exp.registry import versions
from fmnist_exp.tracking import models as logged_models
from fmnist_exp.tracking import store
from fmnist_exp.tracking.names import Artifact, ModelName, Tag
from fmnist_exp.tracking.redact import first_line
from fmnist_exp.tracking.spool import leftovers
from fmnist_exp.tuning import record, retention
from fmnist_exp.tuning.workers import study_lock

CHECKPOINTS = {str(Artifact.CHECKPOINT), *(Artifact.STATE.format(turn=turn) for turn in (0, 1))}
PAGE = 500  # runs or logged models in one answer of the store

Kind = Literal["weights", "models", "checkpoints", "spool folders"]
MEANINGS: dict[Kind, str] = {
    "weights": "weights of trials that are not among the best of their study",
    "models": "logged models that are incomplete, or whose run was deleted",
    "checkpoints": "checkpoints of runs that finished",
    "spool folders": "folders of the spool that were sent, or whose run was deleted",
}


@dataclass(frozen=True)
class Item:
    """Something that nobody needs. `delete` raises an error if it cannot be deleted, and does nothing if it is gone."""

    kind: Kind
    name: str
    count: int
    bytes: int
    delete: Callable[[], None]


@dataclass(frozen=True)
class Found:
    """All that nobody needs, and sentences about what was left alone."""

    items: tuple[Item, ...]
    notices: tuple[str, ...]

    def total(self, kind: Kind) -> tuple[int, int]:
        """Return the number of things of a kind, and their size in bytes."""
        chosen = [item for item in self.items if item.kind == kind]
        return sum(item.count for item in chosen), sum(item.bytes for item in chosen)


class _Finder:
    """Looks for what nobody needs, and collects sentences about what was left alone."""

    def __init__(self, client: MlflowClient, storage: str, keep: int) -> None:
        self.client = client
        self.storage = storage
        self.keep = keep
        self.models, self.runs = versions.needed(client)
        self.running = study_lock.running(storage)
        self.notices: list[str] = []
        self._found: dict[str, Run | None] = {}

    def weights(self) -> Iterator[Item]:
        """Yield the weights that each study does not need. Studies of other programs are left alone."""
        for name in study_lock.names(self.storage):
            study = optuna.load_study(study_name=name, storage=self.storage)
            if name in self.running:
                self.notices.append(f"study {name} is running, so that its trials stay as they are")
            elif (keep := _keep(study, self.keep)) is None:
                self.notices.append(
                    f"study {name} was made by another program or version, so that its trials stay as they are"
                )
            else:
                sizes = [self._weights_of(model_id) for model_id in retention.plan(study, keep, self.client).models]
                if any(sizes):
                    delete = partial(_delete_weights, self.client, self.storage, name, keep)
                    count = sum(size > 0 for size in sizes)
                    yield Item("weights", f"study {name}", count, sum(sizes), delete)

    def orphans(self) -> Iterator[Item]:
        """Yield logged models that are incomplete, or whose run was deleted, and those that only were checkpoints."""
        waiting = leftovers.waiting_runs()  # their models may be incomplete because they are being sent
        for model in _logged_models(self.client):
            run = self._run(str(model.source_run_id))
            if run is None or model.model_id in self.models or run.info.run_id in self.runs:
                continue
            is_deleted = run.info.lifecycle_stage == "deleted"
            kind = self._useless(model, run) if is_deleted or run.info.run_id not in waiting else None
            if kind is not None:
                size = self._size(str(model.artifact_location))
                yield Item(kind, f"model {model.model_id}", 1, size, partial(_delete_model, self.client, model))

    def checkpoints(self) -> Iterator[Item]:
        """Yield the checkpoints among the artifacts of runs that finished."""
        for kind in ("train", "trial"):
            for run in _runs(self.client, f"tags.`{Tag.KIND}` = '{kind}' and attributes.status = 'FINISHED'"):
                location = str(run.info.artifact_uri)
                if run.info.run_id not in self.runs and (size := self._size(location, CHECKPOINTS)):
                    delete = partial(_delete_files, self.client, location, f"run {run.info.run_id}")
                    yield Item("checkpoints", f"run {run.info.run_id}", 1, size, delete)

    def folders(self) -> Iterator[Item]:
        """Yield the folders of the spool that were sent, or whose run was deleted."""
        for left in leftovers.unneeded(self.client):
            yield Item("spool folders", f"folder {left.path.name}", 1, left.bytes, left.delete)

    def _useless(self, model: LoggedModel, run: Run) -> Kind | None:
        """Return the kind of a logged model that nobody needs, or None if somebody may need it."""
        tags = run.data.tags
        if Tag.KIND not in tags or tags.get(Tag.STUDY) in self.running:
            return None
        if run.info.lifecycle_stage == "deleted":
            return "models"
        if run.info.status == "RUNNING":
            return None
        if str(model.status) != "READY":
            return "models"
        return "checkpoints" if model.name == ModelName.CHECKPOINT and run.info.status == "FINISHED" else None

    def _weights_of(self, model_id: str) -> int:
        try:
            location = str(self.client.get_logged_model(model_id).artifact_location)
        except MlflowException:  # somebody deleted it
            return 0
        return self._size(location, packaging.WEIGHTS)

    def _size(self, location: str, paths: Collection[str] | None = None) -> int:
        try:
            return store.size(self.client, location, paths)
        except Exception as error:  # each kind of artifact store has errors of its own
            self.notices.append(f"the files at {location} cannot be listed: {first_line(error)}")
            return 0

    def _run(self, run_id: str) -> Run | None:
        if run_id not in self._found:
            self._found[run_id] = None
            with suppress(MlflowException):  # it was deleted for good, so that nobody knows whose it was
                self._found[run_id] = self.client.get_run(run_id)
        return self._found[run_id]


def find(client: MlflowClient, storage: str, keep: int) -> Found:
    """Find what nobody needs, without changing anything.

    Args:
        client: the client of the store.
        storage: address of the studies' database.
        keep: number of the best trials of each study whose weights stay; a study that keeps more by its `search.keep`
            keeps as many as that.

    Raises:
        RequestError: the database of the studies cannot be used.
    """
    finder = _Finder(client, storage, keep)
    items = (*finder.weights(), *finder.orphans(), *finder.checkpoints(), *finder.folders())
    return Found(items, tuple(finder.notices))


def delete(found: Found) -> list[str]:
    """Delete all that was found, and return the reasons for which some of it could not be deleted.

    Raises the error of a full disk, on which a database cannot note what is deleted.
    """
    problems = []
    for item in found.items:
        try:
            item.delete()
        except (RequestError, WorkError) as error:
            if is_full_disk(error):
                raise
            problems.append(f"{item.name}: {error}")
    return problems


def _keep(study: Study, keep: int) -> int | None:
    """Return the number of trials that keep their weights, or None if the study is not one of this version."""
    with suppress(RequestError):
        config = record.experiment_of(study)
        if config is not None and config.search is not None:
            return max(keep, config.search.keep or 0)
    return None


def _delete_weights(client: MlflowClient, storage: str, name: str, keep: int) -> None:
    """Delete weights under the study's lock, so that no search begins meanwhile. Raises RequestError or WorkError."""
    with study_lock.hold(storage, name):
        study = optuna.load_study(study_name=name, storage=storage)
        if reason := retention.apply(study, keep, client, f"fmnist-exp clean --keep {keep}").reason:
            raise WorkError(reason)


def _delete_model(client: MlflowClient, model: LoggedModel) -> None:
    """Delete a logged model, unless a version needs it by now. Raises WorkError."""
    if model.model_id not in versions.needed(client)[0]:
        logged_models.delete(client, model)


def _delete_files(client: MlflowClient, location: str, name: str) -> None:
    try:
        store.delete_files(client, location, CHECKPOINTS)
    except Exception as error:  # each kind of artifact store has errors of its own
        raise WorkError(f"the checkpoint of {name} cannot be deleted: {first_line(error)}") from error


def _logged_models(client: MlflowClient) -> Iterator[LoggedModel]:
    experiments, token = _experiments(client), None
    while True:
        page = client.search_logged_models(experiments, max_results=PAGE, page_token=token)
        yield from page
        if not (token := page.token):
            return


def _runs(client: MlflowClient, query: str) -> Iterator[Run]:
    experiments, token = _experiments(client), None
    while True:
        page = client.search_runs(experiments, query, max_results=PAGE, page_token=token)
        yield from page
        if not (token := page.token):
            return


def _experiments(client: MlflowClient) -> list[str]:
    return [str(experiment.experiment_id) for experiment in client.search_experiments()]
