"""Bring one record to the store: one function per kind of record, each of which may be repeated without harm.

If the last attempt ended without a clear answer, the store may have the record already. Then it is asked first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow import MlflowClient, entities
from mlflow.exceptions import MlflowException

from fmnist_exp.tracking import experiments, ownership, store, transport
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tracking.spool import folder as folders
from fmnist_exp.tracking.spool import ids
from fmnist_exp.tracking.spool.records import Record


@dataclass(frozen=True)
class Delivery:
    """A record on its way to the store, and what the function of its kind needs to know."""

    client: MlflowClient
    record: Record
    body: Mapping[str, Any]  # of the record, with the store's ids
    run_id: str  # the store's; empty before the run is created
    local: str  # local id of the spool's run, or empty
    files: Path  # folder of the record's files
    doubtful: bool  # the store may have the record already
    late: bool  # its writer is gone, so that the run may have been resumed by another process since
    history: dict[tuple[str, str], dict[tuple[object, ...], int]]  # known times of metrics by run and name
    damaged: list[str] = field(default_factory=list)  # what the disk has changed, so that it cannot be sent


Handler = Callable[[Delivery], str]
HANDLERS: dict[str, Handler] = {}


class DamagedError(Exception):
    """The disk has changed files of a record, so that the record cannot be sent."""


def delivers(kind: str) -> Callable[[Handler], Handler]:
    """Return a decorator that makes a function the one that delivers a kind of records.

    It returns the id that the store gave, or an empty text. It raises whatever the store raises.
    """

    def register(handler: Handler) -> Handler:
        HANDLERS[kind] = handler
        return handler

    return register


def intact_files(to: Delivery) -> Path:
    """Return the folder of a record's files, without files that the disk has changed since they were written.

    A folder from elsewhere may hold more than its records say. Such files and all links are deleted and not sent.
    """
    expected: Mapping[str, str] = to.record.body.get("files", {})
    paths = [path for path in to.files.rglob("*") if path.is_symlink() or not path.is_dir()]
    found = {path.relative_to(to.files).as_posix(): path for path in paths}
    plain = {name for name, path in found.items() if path.is_file() and not path.is_symlink()}
    sound = {name for name in plain & expected.keys() if folders.checksum(found[name]) == expected[name]}
    for name in found.keys() - sound:
        found[name].unlink()
    to.damaged.extend(f"file {name}" for name in sorted(expected.keys() - sound))
    return to.files


@delivers("create_run")
def _create_run(to: Delivery) -> str:
    body = to.body
    if to.doubtful and (found := ids.find_run(to.client, to.local)):
        return found
    parent = body["tags"].get(Tag.PARENT)
    experiment_id = body["experiment_id"] or _experiment(to.client, body["experiment_name"], parent)
    if not parent:
        experiments.describe(to.client, experiment_id)
    tags = {**body["tags"], str(Tag.SPOOL_ID): to.local}
    run_id = str(to.client.create_run(experiment_id, int(body["start_time"]), tags, body["name"] or None).info.run_id)
    return _without_twins(to, experiment_id, to.local) or run_id


def _without_twins(to: Delivery, experiment_id: str, local: str, keep: str = "") -> str:
    """Delete the runs that a request made besides the first one, and return the id of the run that stays.

    A request may be carried out twice on its way to a server, or after it was given up and sent again.
    """
    if not to.client.tracking_uri.startswith("http"):
        return ""
    found = ids.find_runs(to.client, [experiment_id], local, active=True)
    keep = keep or next(iter(found), "")
    for run_id in found:
        if run_id != keep:
            to.client.set_terminated(run_id, "KILLED")  # a deleted run can be restored, and is not in progress
            to.client.delete_run(run_id)
    return keep


def _experiment(client: MlflowClient, name: str, parent: str | None) -> str:
    """Return the id of a run's experiment: that of its parent, or the one with this name."""
    if parent:
        return str(client.get_run(parent).info.experiment_id)
    return experiments.find(client, name) if name else experiments.current(client)


@delivers("batch")
def _batch(to: Delivery) -> str:
    metrics = to.body.get("metrics", [])
    if to.doubtful or to.body.get("again"):
        metrics = _missing(to, metrics)
    to.client.log_batch(
        to.run_id,
        [_metric(*entry) for entry in metrics],
        [entities.Param(key, value) for key, value in to.body.get("params", {}).items()],
        [entities.RunTag(key, value) for key, value in to.body.get("tags", {}).items()],
        synchronous=True,
    )
    return ""


def _metric(key: str, value: float, timestamp: int, step: int, *about: str | None) -> entities.Metric:
    """Return a metric. `about` are the model, which may be lost, and the name and digest of the images."""
    return entities.Metric(key, value, timestamp, step, *(each or None for each in about))


def _missing(to: Delivery, metrics: list[list[Any]]) -> list[list[Any]]:
    """Return those metrics that the store does not have.

    Metrics of models are sent again in any case, at the time that the store knows: the store keeps them once more for
    the model, and drops equal ones of the run. A run that was resumed after the death of a writer has computed the same
    epochs again, and perhaps the same results, at other times.
    """
    by_step, missing = to.late or to.body.get("again"), []
    for entry in metrics:
        key, value, timestamp, step, *linked = entry
        known = to.history.get((to.run_id, key))
        if known is None:
            points = to.client.get_metric_history(to.run_id, key)
            known = {identity: p.timestamp for p in points for identity in _identities(p.value, p.timestamp, p.step)}
        own = _identities(value, timestamp, step)
        stored = known.get(own[0] if not by_step else own[1] if step > 0 else own[2])
        if stored is None or any(linked[:1]):
            missing.append([key, value, stored or timestamp, step, *linked])
        to.history[to.run_id, key] = {**dict.fromkeys(own, timestamp), **known}
    return missing


def _identities(value: float, timestamp: int, step: int) -> tuple[tuple[object, ...], ...]:
    """Return what tells a value of a metric from the others: its time, its step, or the value itself."""
    return ("time", step, timestamp), ("step", step), ("value", step, value)


@delivers("inputs")
def _inputs(to: Delivery) -> str:
    datasets = []
    for name, digest, source, schema, profile, context in to.body.get("datasets", []):
        dataset = entities.Dataset(name, digest, "local", source, schema, profile)
        datasets.append(entities.DatasetInput(dataset, [entities.InputTag("mlflow.data.context", context)]))
    models = [entities.LoggedModelInput(model) for model in to.body.get("models", []) if model]
    if to.doubtful and models:
        inputs = to.client.get_run(to.run_id).inputs
        known = {model.model_id for model in inputs.model_inputs} if inputs else set()
        models = [model for model in models if model.model_id not in known]
    to.client.log_inputs(to.run_id, datasets, models)  # the store drops datasets that it has
    return ""


@delivers("outputs")
def _outputs(to: Delivery) -> str:
    link_outputs(to, [(model, step) for model, step in to.body["models"] if model])
    return ""


def link_outputs(to: Delivery, models: list[tuple[str, int]]) -> None:
    """Link the run with models that it produced, each at a step, unless the store has the link."""
    if to.doubtful:  # the store keeps a link twice if it gets it twice
        outputs = to.client.get_run(to.run_id).outputs
        known = {model.model_id for model in outputs.model_outputs} if outputs else set()
        models = [entry for entry in models if entry[0] not in known]
    if models:
        to.client.log_outputs(to.run_id, [entities.LoggedModelOutput(*entry) for entry in models])


@delivers("artifacts")
def _artifacts(to: Delivery) -> str:
    folder = intact_files(to)
    if folder.is_dir():
        to.client.log_artifacts(to.run_id, str(folder), to.body.get("path") or None)
    return ""


@delivers("delete_artifacts")
def _delete_artifacts(to: Delivery) -> str:
    address = to.client.get_run(to.run_id).info.artifact_uri
    try:
        store.delete_files(to.client, address, to.body["paths"])
    except Exception as error:  # each kind of artifact store has errors of its own, and some cannot delete
        if transport.is_lost(error):
            raise
    return ""


@delivers("status")
def _status(to: Delivery) -> str:
    status, ended = to.body["status"], to.body.get("end_time")
    if status == "DELETED":
        _discard(to, ended)
        return ""
    if to.late:
        run = to.client.get_run(to.run_id)
        if run.data.tags.get(Tag.ERROR, "").startswith(ownership.DIED):  # so it ended by itself, while nobody knew
            with transport.unless_gone():
                to.client.delete_tag(to.run_id, str(Tag.ERROR))
        elif _has_gone_on(to, run):
            return ""
    if status == "RUNNING":
        to.client.update_run(to.run_id, status)
        for tag in (Tag.ERROR, Tag.TRIAL_STATE):  # they said how it ended
            with transport.unless_gone():
                to.client.delete_tag(to.run_id, str(tag))
        return ""
    to.client.set_terminated(to.run_id, status, ended)
    run = to.client.get_run(to.run_id)
    if local := run.data.tags.get(Tag.SPOOL_ID):  # a request for it may have been carried out once more, but late
        _without_twins(to, str(run.info.experiment_id), local, keep=to.run_id)
    return ""


def _has_gone_on(to: Delivery, run: entities.Run) -> bool:
    """Return True if another process has resumed or ended the run after the record was written."""
    resumed = int(run.data.tags.get("fmnist.resumptions", "0")) > int(to.body.get("resumptions", 0))
    return resumed or (run.info.end_time or 0) > (to.body.get("end_time") or to.record.time)


def _discard(to: Delivery, ended: int | None) -> None:
    """Delete a run and the models that it logged, or close it if this user may not delete."""
    run = to.client.get_run(to.run_id)
    if run.info.lifecycle_stage == "deleted":
        return
    to.client.set_terminated(to.run_id, "KILLED", ended)
    try:
        found = to.client.search_logged_models([run.info.experiment_id], filter_string=f"source_run_id = '{to.run_id}'")
        for model in found:
            with transport.unless_gone():
                to.client.delete_logged_model(model.model_id)
        to.client.delete_run(to.run_id)
    except MlflowException as error:
        if error.error_code != "PERMISSION_DENIED":
            raise
