"""Spools for tests: the records of a run with everything that can be logged, and what the store has."""

import dataclasses
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from mlflow import MlflowClient

from fmnist_exp.registry import deliveries  # noqa: F401  (so that models and versions can be sent)
from fmnist_exp.tracking.spool import ids
from fmnist_exp.tracking.spool.folder import RunHead
from fmnist_exp.tracking.spool.process import sender
from fmnist_exp.tracking.spool.queue import Spool

TABLES = ("runs", "metrics", "params", "tags", "inputs", "datasets", "logged_models", "logged_model_tags")
TABLES += ("logged_model_metrics", "logged_model_params", "model_versions", "model_version_tags")


def head(**changes: object) -> RunHead:
    return dataclasses.replace(RunHead(ids.new(), "", "train", "me", ""), **changes)


def creation(experiment_id: str = "0", **tags: str) -> dict[str, object]:
    known = {"experiment_id": experiment_id, "experiment_name": "", "name": "a run", "start_time": 1000}
    return {**known, "tags": {"fmnist.kind": "train", **tags}}


def begin(client: MlflowClient, parent: str = "") -> Spool:
    """Open a spool and append the record that creates its run."""
    spool = sender().open(client, head())
    spool.append("create_run", creation(**({"mlflow.parentRunId": parent} if parent else {})))
    return spool


def log_everything(spool: Spool, model: Path, scratch: Path) -> tuple[str, str]:
    """Append a record of every other kind, and end the run; return the local ids of model and version."""
    model_id, version_id = ids.new(), ids.new()
    dataset = ["small", "d1", '{"uri": "here"}', '{"features": "uint8"}', '{"images": 9}', "training"]
    spool.append("batch", {"params": {"p": "1", "q": "x" * 300}, "tags": {"note": "hello"}})
    spool.append("inputs", {"datasets": [dataset], "models": []})
    for step in (1, 2, 3):
        spool.append("batch", {"metrics": [["loss", 1 / step, 1000 + step, step], ["nan", float("nan"), 7, step]]})
    spool.append("artifacts", {"path": "curves"}, files=folder(scratch, {"a.txt": "a", "deep/b.txt": "b"}))
    spool.append("artifacts", {"path": ""}, files=folder(scratch, {"state.txt": "s"}))
    spool.append("delete_artifacts", {"paths": ["state.txt"]})
    left_out = shutil.ignore_patterns("checksums.json", "registered_model_meta")
    files = Path(shutil.copytree(model, scratch / model_id, ignore=left_out))
    body = {"id": model_id, "name": "model", "params": {"width": "32"}, "model_type": "keras", "step": 3}
    spool.append("model", {**body, "signer": ""}, files=files)
    spool.append("batch", {"metrics": [["accuracy", 0.5, 2000, 0, model_id, "small", "d1"]]})
    spool.append("batch", {"tags": {"mlflow.note.content": f"model {model_id} of run {spool.head.id}"}})
    spool.append("register", {"id": version_id, "model_id": model_id, "run_id": spool.id, "tags": {"study": "s"}})
    spool.append("status", {"status": "FINISHED", "end_time": 5000})
    return model_id, version_id


def folder(scratch: Path, files: dict[str, str]) -> Path:
    """Write files into a new folder."""
    made = scratch / ids.new()
    for name, text in files.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
    return made


def contents(database: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return the rows of all tables that runs and models are kept in."""
    with closing(sqlite3.connect(database)) as connection:
        return {table: sorted(connection.execute(f"SELECT * FROM {table}"), key=repr) for table in TABLES}
