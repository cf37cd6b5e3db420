"""A run that writes one record of every kind to its spool, and what a store has of it in the end."""

import itertools
import json
import os
import shutil
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import ViewType

from fmnist_exp.registry import deliveries, versions
from fmnist_exp.tracking import store
from fmnist_exp.tracking.spool import ids
from fmnist_exp.tracking.spool.folder import RunHead
from fmnist_exp.tracking.spool.process import sender
from fmnist_exp.tracking.spool.queue import Spool

assert deliveries  # imported for its kinds of records
EPOCHS = 3
DATASET = ["validation", "d1", '{"uri": "here"}', '{"features": "uint8"}', '{"images": 200}', "validation"]
KINDS = [  # of records, each with its calls
    ("create_run", "runs/create"),
    ("batch", "runs/log-batch"),
    ("inputs", "runs/log-inputs"),
    ("outputs", "runs/outputs"),
    ("artifacts", "PUT /api/2.0/mlflow-artifacts"),
    ("delete_artifacts", "DELETE /api/2.0/mlflow-artifacts"),
    ("model", "POST /api/2.0/mlflow/logged-models", "PATCH /api/2.0/mlflow/logged-models"),
    ("register", "registered-models/create", "model-versions/create", "model-versions/set-tag", "alias"),
    ("status", "runs/update"),
]
ABOUT = {"name": "model", "params": {"rate": "0.1"}, "model_type": "keras", "step": 0, "signer": ""}  # a model
TURN = 1_800_000_000_000  # milliseconds since the epoch: when the first epoch ended


def write(experiment_id: str, model: Path, folder: Path) -> None:
    """Write a run of three epochs with inputs, artifacts, a model and a version, below a parent; end both."""
    parent = _create(experiment_id, "parent", {})
    spool = _create(experiment_id, "child", {"mlflow.parentRunId": parent.head.id})
    spool.append("batch", {"params": {"rate": "0.1", "widths": "[8]"}, "tags": {"note": "begun"}})
    spool.append("inputs", {"datasets": [DATASET]})
    for epoch in range(1, EPOCHS + 1):
        metrics = [["loss", 1 / epoch, TURN + epoch, epoch], ["val_accuracy", epoch / EPOCHS, TURN + epoch, epoch]]
        spool.append("batch", {"metrics": metrics})
    for name in ("state", "curve"):
        files = folder / name
        (files / "plots").mkdir(parents=True)
        (files / "plots" / f"{name}.txt").write_text(name * 100)
        spool.append("artifacts", {"path": "figures"}, files)
    spool.append("delete_artifacts", {"paths": ["figures/plots/state.txt"]})
    model_id = ids.new()
    spool.append("model", {**ABOUT, "id": model_id}, Path(shutil.copytree(model, folder / "model")))
    spool.append("batch", {"metrics": [["val_loss", 0.5, TURN, EPOCHS, model_id, DATASET[0], DATASET[1]]]})
    spool.append("inputs", {"models": [model_id]})
    parent.append("outputs", {"models": [[model_id, 1]]})
    tags = {"run_id": spool.head.id, "val_accuracy": "1.0"}
    spool.append("register", {"id": ids.new(), "model_id": model_id, "run_id": spool.head.id, "tags": tags})
    for run in (spool, parent):
        run.append("status", {"status": "FINISHED", "end_time": TURN + 5000})
        run.close()


def _create(experiment_id: str, name: str, tags: dict[str, str]) -> Spool:
    spool = sender().open(store.client(), RunHead(ids.new(), experiment_id, "train", "me", "c0ffee"))
    creation = {"experiment_id": experiment_id, "experiment_name": "", "name": name, "start_time": TURN - 1000}
    spool.append("create_run", {**creation, "tags": {"mlflow.user": "me", **tags}})
    return spool


def main(uri: str, folder: Path, experiment_id: str, model: Path) -> None:
    """Write a run with everything and send it, as a process of its own in a folder of its own."""
    _begin(uri, folder)
    write(experiment_id, model, folder / f"written-{os.getpid()}")
    sender().drain()


def endless(uri: str, folder: Path, experiment_id: str, said: Connection) -> None:
    """Write epochs without an end, and say the number of each when it is written."""
    _begin(uri, folder)
    spool = _create(experiment_id, f"endless {os.getpid()}", {})
    for epoch in itertools.count(1):
        spool.append("batch", {"metrics": [["loss", 1 / epoch, TURN + epoch, epoch]]})
        said.send(epoch)
        time.sleep(0.0005)  # so that there are not too many to be sent


def _begin(uri: str, folder: Path) -> None:
    os.chdir(folder)
    os.environ["MLFLOW_TRACKING_URI"] = uri


def stored(client: MlflowClient, experiment_id: str) -> dict[str, Any]:
    """Return all that the store has in an experiment, with names in place of the ids that differ each time."""
    found = client.search_logged_models([experiment_id])
    names = {str(model.model_id): f"<model {number}>" for number, model in enumerate(found)}
    order = ["attributes.run_name"]
    runs = client.search_runs([experiment_id], run_view_type=ViewType.ACTIVE_ONLY, order_by=order)
    names |= {run.info.run_id: f"<run {number}>" for number, run in enumerate(runs)}
    every = [version for version in versions.by_number(client).values() if versions.logged_model(version) in names]
    content = {
        "runs": [_run(client, run.info.run_id) for run in runs],
        "models": [_model(client, model.model_id) for model in found],
        "versions": [
            {"tags": _kept(version.tags), "run": version.run_id, "model": versions.logged_model(version)}
            for version in every
        ],
    }
    text = json.dumps(content, sort_keys=True)
    for found_id, name in names.items():
        text = text.replace(found_id, name)
    return dict(json.loads(text))


def _run(client: MlflowClient, run_id: str) -> dict[str, Any]:
    run = client.get_run(run_id)
    histories = {key: client.get_metric_history(run_id, key) for key in run.data.metrics}
    inputs, outputs = run.inputs, run.outputs
    return {
        "info": [run.info.run_name, run.info.status, run.info.lifecycle_stage, run.info.start_time, run.info.end_time],
        "params": run.data.params,
        "tags": _kept(run.data.tags),
        "metrics": {
            key: sorted([point.step, point.timestamp, point.value] for point in points)
            for key, points in histories.items()
        },
        "datasets": sorted([found.dataset.name, found.dataset.digest] for found in inputs.dataset_inputs),
        "input models": sorted(found.model_id for found in inputs.model_inputs),
        "output models": sorted([found.model_id, found.step] for found in outputs.model_outputs),
        "artifacts": sorted(entry.path for entry in client.list_artifacts(run_id, "figures/plots")),
    }


def _model(client: MlflowClient, model_id: str) -> dict[str, Any]:
    model = client.get_logged_model(model_id)
    metrics = [[found.key, found.value, found.step, found.dataset_name] for found in model.metrics or []]
    described = {"status": str(model.status), "params": model.params, "metrics": metrics, "run": model.source_run_id}
    return {**described, "tags": sorted(_kept(model.tags))}


def _kept(tags: dict[str, str]) -> dict[str, str]:
    """Return tags without those whose values differ each time."""
    changing = ("fmnist.spool_id", "sha256", "fmnist.sha256", "description_sha256", "signature")
    return {key: "" if key in changing else value for key, value in tags.items()}
