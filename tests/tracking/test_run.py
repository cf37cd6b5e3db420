"""Runs start, log and end as documented."""

import contextlib
import signal
import sqlite3
import sys
import threading
import time
from functools import partial
from typing import Any

import mlflow
import numpy as np
import pytest
import sqlalchemy

from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.errors import WorkError
from fmnist_exp.export import packaging
from fmnist_exp.tracking import models as logged_models
from fmnist_exp.tracking import orphans, store, system_metrics
from fmnist_exp.tracking import run as runs

CONFIG = files.override(ExperimentConfig(), {"name": "tiny", "training.epochs": 2, "training.learning_rate": 3e-3})


def ended(client: mlflow.MlflowClient, error: BaseException | None) -> Any:
    with contextlib.suppress(BaseException), runs.closing(runs.start_run(client, "train", "run", "x")) as run:
        if error:
            raise error
    return client.get_run(run.id)


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (None, "FINISHED", None),
        (WorkError("the loss\nbecame nan"), "FAILED", "the loss"),
        (ValueError("http://me:secret@host/ is gone"), "FAILED", "http://***@host/ is gone"),
        (ZeroDivisionError(), "FAILED", "ZeroDivisionError"),
        (SystemExit(3), "FAILED", "3"),
        (KeyboardInterrupt(), "KILLED", "interrupted"),
    ],
)
def test_a_run_is_closed_with_the_right_status(shared_store, error, status, reason):
    run = ended(store.connect(), error)
    assert (run.info.status, run.data.tags.get("fmnist.error")) == (status, reason)
    assert run.info.end_time >= run.info.start_time


def test_closing_does_not_swallow_the_error(shared_store):
    run = runs.start_run(store.connect(), "train", "run", "x")
    with pytest.raises(ZeroDivisionError), runs.closing(run):
        raise ZeroDivisionError


def test_ctrl_c_during_any_statement_of_the_store_leaves_it_writable(shared_store):
    """A cursor that the interrupt left half read would lock SQLite for everybody, and the run would stay open."""
    client = store.connect()
    seen, press, counting = 0, 0, False

    def count(*_: object) -> None:
        nonlocal seen
        seen += counting
        if counting and seen == press:
            signal.raise_signal(signal.SIGINT)

    for name in ("before_cursor_execute", "after_cursor_execute"):
        sqlalchemy.event.listen(sqlalchemy.Engine, name, count)
    heeding = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        while press < 100:
            press += 1
            run = runs.start_run(client, "train", "run", "x")
            try:
                with runs.closing(run):
                    seen, counting = 0, True
                    client.get_run(run.id)
                    counting = False
            except KeyboardInterrupt:
                counting = False
                assert client.get_run(run.id).info.status == "KILLED"
            else:
                break
    finally:
        signal.signal(signal.SIGINT, heeding)
        for name in ("before_cursor_execute", "after_cursor_execute"):
            sqlalchemy.event.remove(sqlalchemy.Engine, name, count)
    assert 10 < press < 100  # several statements were interrupted, and at last none


def test_a_run_that_mlflow_made_is_taken_over(shared_store, small):
    """`mlflow run` has written the params in its own spelling before, and they may not be written twice."""
    client = store.connect()
    made = client.create_run("0", tags={"mlflow.project.entryPoint": "train"})
    client.log_param(made.info.run_id, "training.learning_rate", "3e-3")
    client.log_param(made.info.run_id, "experiment", "tiny.yaml")
    run = runs.start_run(client, "train", "tiny", "tiny", run_id=made.info.run_id)
    assert run.id == made.info.run_id
    runs.log_start(run, CONFIG, small)
    runs.log_start(run, CONFIG, small)
    assert run.delivered()
    found = client.get_run(run.id).data
    assert (found.params["training.learning_rate"], found.params["experiment"]) == ("3e-3", "tiny.yaml")
    assert found.params["training.epochs"] == "2"
    assert (found.tags["fmnist.kind"], found.tags["mlflow.project.entryPoint"]) == ("train", "train")
    assert client.get_run(run.id).info.run_name == "tiny"


def test_a_child_run_stands_in_its_parents_experiment(shared_store, monkeypatch):
    client = store.connect()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "elsewhere")
    parent = runs.start_run(client, "tune", "parent", "x")
    assert client.get_experiment(parent.experiment_id).name == "elsewhere"
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    child = runs.start_run(client, "trial", "child", "x", parent)
    found = client.get_run(child.id)
    assert found.info.experiment_id == parent.experiment_id != "0"
    assert found.data.tags["mlflow.parentRunId"] == parent.id


def test_the_experiment_by_id(shared_store, monkeypatch):
    client = store.connect()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", client.create_experiment("by id"))
    run = runs.start_run(client, "train", "run", "x")
    assert client.get_experiment(run.experiment_id).name == "by id"


def test_many_params_and_metrics_in_one_call(shared_store):
    client = store.connect()
    run = runs.start_run(client, "train", "run", "x")
    run.log_params({f"p{i}": i for i in range(250)})
    run.log_metrics({f"m{i}": i for i in range(250)}, step=3)
    assert run.delivered()
    found = client.get_run(run.id).data
    assert (len(found.params), len(found.metrics), found.params["p249"]) == (250, 250, "249")
    assert run.logged_metrics("m24") == {f"m24{end}": float(f"24{end}") for end in ["", *range(10)]}


def test_the_experiment_says_what_to_show_first(shared_store, monkeypatch):
    client = store.connect()
    for name, tags in {"fresh": {}, "decided": {"mlflow.experiment.primaryMetric.name": "test_ece"}}.items():
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", client.create_experiment(name, tags=tags))
        runs.start_run(client, "train", "run", "x")
    fresh, decided = (client.get_experiment_by_name(name).tags for name in ("fresh", "decided"))
    assert fresh["mlflow.experiment.primaryMetric.name"] == "best_val_accuracy"
    assert fresh["mlflow.experiment.primaryMetric.greaterIsBetter"] == "true"
    assert decided["mlflow.experiment.primaryMetric.name"] == "test_ece"
    assert "mlflow.experiment.primaryMetric.greaterIsBetter" not in decided
    assert fresh["mlflow.experimentKind"] == decided["mlflow.experimentKind"] == "custom_model_development"


def test_the_load_of_the_machine_is_logged_while_the_block_runs(shared_store, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.2")
    client = store.connect()
    run = runs.start_run(client, "train", "run", "x")

    def logged() -> dict[str, float]:
        return run.logged_metrics("system/")

    with contextlib.suppress(KeyboardInterrupt), system_metrics.monitoring(run):
        deadline = time.monotonic() + 60
        while not logged() and time.monotonic() < deadline:
            time.sleep(0.1)
        raise KeyboardInterrupt
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= logged().keys()
    assert client.get_metric_history(run.id, "system/cpu_utilization_percentage")[0].value > 0
    assert "SystemMetricsMonitor" not in {thread.name for thread in threading.enumerate()}
    assert capfd.readouterr() == ("", "")


def test_the_load_is_not_logged_if_mlflow_is_told_so(shared_store, monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "false")
    with system_metrics.monitoring(runs.start_run(store.connect(), "train", "run", "x")):
        assert "SystemMetricsMonitor" not in {thread.name for thread in threading.enumerate()}


def test_a_run_gets_another_parent_unless_a_user_deleted_it(shared_store):
    client = store.connect()
    child, parent = (runs.start_run(client, "trial", name, "x") for name in ("child", "parent"))
    orphans.reattach(parent, child.id)
    assert parent.delivered()
    assert client.get_run(child.id).data.tags["mlflow.parentRunId"] == parent.id
    client.delete_run(child.id)
    another = runs.start_run(client, "tune", "another", "x")
    orphans.reattach(another, child.id)
    assert another.delivered()
    assert client.get_run(child.id).data.tags["mlflow.parentRunId"] == parent.id


def test_artifacts_of_a_block_that_fails_are_not_logged(shared_store):
    client = store.connect()
    run = runs.start_run(client, "train", "run", "x")
    with contextlib.suppress(ZeroDivisionError), run.artifacts() as folder:
        (folder / "half.txt").write_text("half")
        raise ZeroDivisionError
    assert client.list_artifacts(run.id) == []


def test_of_a_model_that_cannot_be_written_nothing_is_logged(shared_store):
    client = store.connect()
    run = runs.start_run(client, "train", "run", "x")
    with pytest.raises(Exception, match="'str' object"):
        logged_models.log(
            run, partial(packaging.save, model="not a model", examples=np.zeros((1, 28, 28), np.uint8)), {}
        )
    assert run.delivered()
    assert not client.search_logged_models([run.experiment_id], filter_string=f"source_run_id = '{run.id}'")


def test_no_secret_reaches_the_store(shared_store, small, monkeypatch):
    client = store.connect()
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    monkeypatch.setattr(sys, "argv", ["fmnist-exp", "tune", "--storage", "postgresql://me:hunter2@host/db"])
    config = files.override(CONFIG, {"data.source": "https://me:hunter2@host/images"})
    with contextlib.suppress(WorkError), runs.closing(runs.start_run(client, "train", "r", "x")) as run:
        run.set_tags({"note": "https://me:hunter2@host"})
        part = Split("seen first here", small.train.images[:9], small.train.labels[:9])  # a known one keeps its source
        runs.log_start(run, config, FashionMNIST(part, part, part, config.data.source))
        raise WorkError("https://me:hunter2@host is gone")
    assert client.get_run(run.id).data.params["data.source"] == "https://***@host/images"
    with contextlib.closing(sqlite3.connect("mlflow.db")) as database:
        assert "hunter2" not in "\n".join(database.iterdump())
