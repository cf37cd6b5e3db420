"""Bring models and versions from a spool to the store. Importing this module lets the sender do so.

The spool itself is below the registry and the exports, and knows neither.
"""

import logging
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from mlflow.entities import LoggedModel, LoggedModelStatus

from fmnist_exp.export import completion, layout
from fmnist_exp.registry import versions
from fmnist_exp.tracking import store, transport
from fmnist_exp.tracking.names import LoggedModelTag, VersionTag
from fmnist_exp.tracking.spool import delivery, ids
from fmnist_exp.tracking.spool.delivery import DamagedError, Delivery

log = logging.getLogger(__name__)


@delivery.delivers("model")
def _model(to: Delivery) -> str:
    """Create a logged model, upload its files, and finish it; no model stays half in the store."""
    known = _existing(to) if to.doubtful else []
    whole = next((model for model in known if model.status == LoggedModelStatus.READY), None)
    model = whole or next(iter(known), None)
    if whole is None:
        files = delivery.intact_files(to)
        if to.damaged or not files.is_dir():
            for begun in known:
                _delete(to, begun)
            raise DamagedError(f"the model of record {to.record.number} ({', '.join(to.damaged) or 'all files'})")
        model = model or _create(to)
        _complete(to, model, files)
    assert model is not None
    delivery.link_outputs(to, [(str(model.model_id), int(to.body.get("step", 0)))])
    if to.body.get("replaces") or to.late:
        _delete_earlier(to)
    over_http = to.client.tracking_uri.startswith("http")
    for twin in _existing(to) if over_http else ():  # of a request that was carried out twice, or after it was given up
        if twin.model_id != model.model_id:
            _delete(to, twin)
    return str(model.model_id)


def _delete_earlier(to: Delivery) -> None:
    """Delete the run's models of the same name with their files, except that of the newest step and those of versions.

    Records of a process that was killed may come late: the model that is delivered now need not be the newest one, and
    the process that went on may have logged the same model, which is then the one that others know.
    """
    query = f"name = '{to.body['name']}' and source_run_id = '{to.run_id}'"
    found = to.client.search_logged_models([_experiment(to)], filter_string=query)
    if len(found) < 2:
        return
    outputs = to.client.get_run(to.run_id).outputs
    steps = {output.model_id: output.step for output in outputs.model_outputs} if outputs else {}
    own = to.record.body["id"]

    def age(model: LoggedModel) -> tuple[int, bool, int]:
        is_late = to.late and model.tags.get(LoggedModelTag.SPOOL_ID) == own
        return steps.get(model.model_id, -1), not is_late, model.creation_timestamp

    newest = max(found, key=age)
    needed, _ = versions.needed(to.client)
    for model in found:
        if model.model_id != newest.model_id and model.model_id not in needed:
            with suppress(Exception):  # each kind of artifact store has errors of its own, and some cannot delete
                store.delete_files(to.client, str(model.artifact_location), layout.FILES)
            _delete(to, model)


def _delete(to: Delivery, model: LoggedModel) -> None:
    with transport.unless_gone():
        to.client.delete_logged_model(model.model_id)


def _experiment(to: Delivery) -> str:
    return str(to.client.get_run(to.run_id).info.experiment_id)


def _existing(to: Delivery) -> list[LoggedModel]:
    """Return what earlier attempts made of the model."""
    found = []
    for model in ids.find_models(to.client, [_experiment(to)], to.record.body["id"]):
        with transport.unless_gone():  # a deletion that was given up may arrive late
            found.append(to.client.get_logged_model(model.model_id))
    return found


def _create(to: Delivery) -> LoggedModel:
    tags = {**to.body.get("tags", {}), str(LoggedModelTag.SPOOL_ID): to.record.body["id"]}
    described = {"params": to.body.get("params", {}), "model_type": to.body.get("model_type"), "tags": tags}
    return to.client.create_logged_model(_experiment(to), to.body["name"], to.run_id, **described)


def _complete(to: Delivery, model: LoggedModel, files: Path) -> None:
    """Upload a copy of the files with the model's id and signature, and say that the model is ready."""
    model_id = str(model.model_id)
    missing = {key: value for key, value in to.body.get("params", {}).items() if key not in model.params}
    if missing:  # more than one request has params, and an earlier attempt was cut off between them
        to.client.log_model_params(model_id, missing)
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(shutil.copytree(files, Path(temporary) / "model"))
        location = str(model.artifact_location)
        digest, signature = completion.complete(copy, model_id, to.run_id, location, to.body.get("signer", ""))
        to.client.log_model_artifacts(model_id, str(copy))
    tags = {LoggedModelTag.SHA256: digest, LoggedModelTag.SIGNATURE: signature}
    to.client.set_logged_model_tags(model_id, {str(key): value for key, value in tags.items() if value})
    to.client.finalize_logged_model(model_id, "READY")


@delivery.delivers("register")
def _register(to: Delivery) -> str:
    """Make a logged model a version with the alias challenger, and say how to send it to the gate."""
    tags = {**to.body["tags"], VersionTag.SPOOL_ID: to.record.body["id"]}
    version = versions.register(to.client, to.body["model_id"], to.body["run_id"], tags)
    log.warning(
        f"version {version.version} of {versions.NAME} is registered; `fmnist-exp promote --version {version.version}`"
        " sends it to the gate"
    )
    return str(version.version)
