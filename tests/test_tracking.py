"""What a run leaves behind, in the embedded store and on a real MLflow server; and stores that cannot be used."""

import contextlib
import importlib.metadata
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import mlflow
import numpy as np
import pytest
import requests

from fmnist_exp import connection, experiment, experiment_files, tracking
from fmnist_exp.config import ExperimentConfig, flatten
from fmnist_exp.data import CLASS_NAMES, FashionMNIST
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.evaluation import slug
from fmnist_exp.experiment import Outcome

CONFIG = experiment_files.override(
    ExperimentConfig(),
    {
        "name": "tiny",
        "model.family": "mlp",
        "model.widths": [16, 8],
        "model.batch_norm": True,
        "training.epochs": 2,
        "training.batch_size": 50,
        "training.learning_rate": 3e-3,
        "training.schedule": "one_cycle",
        "training.checkpoint": True,
    },
)
ARTIFACTS = {
    "experiment.yaml",
    "curves/accuracy.png",
    "curves/loss.png",
    "evaluation/confusion_matrix.png",
    "evaluation/report.json",
    "evaluation/predictions.png",
    "evaluation/mistakes.png",
    "data/samples.png",
    "data/augmented.png",
    "model/summary.txt",
    "model/diagram.png",
    "checkpoint/best.keras",
}
PER_EPOCH = {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "epoch_seconds"}
AT_THE_END = {*("best_epoch", "best_val_accuracy", "best_val_loss", "fit_seconds", "images_per_second", "parameters")}
TEST = {"test_accuracy", "test_loss", "test_ece", *(f"test_accuracy_{slug(name)}" for name in CLASS_NAMES)}


@contextlib.contextmanager
def real_server(folder, new_database) -> Iterator[str]:
    """`mlflow server` in a process of its own, with its artifacts behind it."""
    database = new_database(folder, "mlflow-artifacts:")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = f"--port {port} --workers 1 --backend-store-uri {database} --artifacts-destination {folder / 'artifacts'}"
    with (folder / "log").open("w") as log:
        command = [sys.executable, "-m", "mlflow", "server", *options.split()]
        quick = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # no job runners: they start slowly
        server = subprocess.Popen(command, cwd=folder, env=quick, stdout=log, stderr=log)
    try:
        for _ in range(600):
            with contextlib.suppress(requests.ConnectionError):
                requests.get(f"{address}/health", timeout=5)
                break
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module", params=["embedded", "server"])
def anywhere(request, tmp_path_factory, new_database) -> Iterator[str]:
    """The embedded store, then a server: what holds for one must hold for the other."""
    if request.param == "embedded":
        yield request.getfixturevalue("shared_store")
        return
    folder = tmp_path_factory.mktemp("server")
    with real_server(folder, new_database) as address, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", address)
        yield address


class Finished:
    """A run that is over, as MLflow knows it."""

    def __init__(self, client: mlflow.MlflowClient, outcome: Outcome) -> None:
        self.client = client
        self.outcome = outcome
        self.run = client.get_run(outcome.run_id)

    def artifacts(self, path: str = "") -> set[str]:
        entries = self.client.list_artifacts(self.run.info.run_id, path)
        own = [entry for entry in entries if entry.path != "model"]
        return {name for e in own for name in (self.artifacts(e.path) if e.is_dir else {e.path})}


@pytest.fixture(scope="module")
def finished(anywhere, small) -> Finished:
    client = connection.connect()
    with tracking.closing(tracking.start_run(client, "train", "a tiny run", CONFIG.name)) as run:
        outcome = experiment.run_experiment(CONFIG, small, run, score_test=True)
    return Finished(client, outcome)


def history(finished: Finished, name: str) -> list[tuple[int, float]]:
    entries = finished.client.get_metric_history(finished.run.info.run_id, name)
    return [(entry.step, entry.value) for entry in entries]


# a finished run


def test_status_and_tags(finished):
    assert finished.run.info.status == "FINISHED"
    assert finished.run.info.run_name == "a tiny run"
    tags = finished.run.data.tags
    assert {name: value for name, value in tags.items() if name.startswith("fmnist.")} == {
        "fmnist.kind": "train",
        "fmnist.experiment": "tiny",
    }
    assert {"mlflow.source.name", "mlflow.source.type", "mlflow.user"} <= set(tags)


def test_params_are_every_field_and_the_versions(finished):
    params = finished.run.data.params
    versions = {f"version.{name}": importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")}
    assert set(params) == {*flatten(CONFIG), *versions}
    assert {name: params[name] for name in versions} == versions
    shown = {"seed": "0", "data.source": "", "model.widths": "[16, 8]", "model.batch_norm": "true"}
    shown |= {"training.learning_rate": "0.003", "training.patience": "", "model.family": "mlp"}
    assert {name: params[name] for name in shown} == shown


def test_metrics_of_every_epoch_are_at_its_number(finished):
    for name in PER_EPOCH:
        expected = [(epoch.number, epoch.metrics[name]) for epoch in finished.outcome.fit.epochs]
        assert [step for step, _ in expected] == [1, 2]
        assert history(finished, name) == [(step, pytest.approx(value)) for step, value in expected]


def test_metrics_at_the_end(finished):
    metrics = finished.run.data.metrics
    assert set(metrics) == PER_EPOCH | AT_THE_END | TEST
    best = finished.outcome.fit.best
    assert metrics["best_epoch"] == best.number
    assert metrics["best_val_accuracy"] == pytest.approx(best.metrics["val_accuracy"])
    assert metrics["best_val_loss"] == pytest.approx(best.metrics["val_loss"])
    assert metrics["parameters"] == finished.outcome.parameters == 784 * 16 + 16 * 8 + 8 * 10 + 10 + 4 * (16 + 8)
    assert metrics["test_accuracy"] == pytest.approx(finished.outcome.test.accuracy)
    assert len(history(finished, "test_accuracy")) == 1


def test_datasets(finished, small):
    inputs = {entry.tags[0].value: entry.dataset for entry in finished.run.inputs.dataset_inputs}
    splits = {"training": small.train, "validation": small.validation, "test": small.test}
    assert set(inputs) == set(splits)
    for context, split in splits.items():
        dataset = inputs[context]
        assert (dataset.name, dataset.digest) == (split.name, split.digest)
        assert json.loads(dataset.source) == {"uri": small.source}
        assert json.loads(dataset.profile) == {"images": len(split.images)}


def test_artifacts_are_exactly_these(finished):
    # MLflow shows the logged model's files among the run's, below the model's name
    assert finished.artifacts() == {name for name in ARTIFACTS if not name.startswith("model/")}
    assert {entry.path for entry in finished.client.list_artifacts(finished.run.info.run_id, "model")} >= {
        *("model/summary.txt", "model/diagram.png", "model/MLmodel", "model/code", "model/data")
    }


def test_pictures_and_texts_have_content(finished):
    folder = finished.client.download_artifacts(finished.run.info.run_id, "")
    for name in ARTIFACTS:
        with open(os.path.join(folder, name), "rb") as file:
            content = file.read()
        if name.endswith(".png"):
            assert content.startswith(b"\x89PNG")
            assert len(content) > 5000
    with open(os.path.join(folder, "evaluation/report.json")) as file:
        report = json.load(file)
    assert {name: part["images"] for name, part in report.items()} == {"validation": 200, "test": 200}
    assert report["test"]["accuracy"] == finished.outcome.test.accuracy
    with open(os.path.join(folder, "model/summary.txt"), encoding="utf-8") as file:
        # Keras counts the optimizer's numbers into the total
        assert f"Trainable params: {finished.outcome.parameters - 2 * (16 + 8):,}" in file.read()


def test_the_experiment_can_be_run_again_from_its_artifact(finished):
    uri = f"runs:/{finished.run.info.run_id}/experiment.yaml"
    assert experiment_files.parse(connection.download_text(uri), "another name") == CONFIG


def test_a_missing_artifact_is_a_wrong_request(finished):
    with pytest.raises(RequestError, match=r"no artifact runs:/.*/nothing\.yaml"):
        connection.download_text(f"runs:/{finished.run.info.run_id}/nothing.yaml")
    with pytest.raises(RequestError, match="no artifact runs:/0123/experiment"):
        connection.download_text("runs:/0123/experiment.yaml")


def test_the_model_is_linked_with_the_run_its_metrics_and_the_data(finished, small):
    model = finished.client.get_logged_model(finished.outcome.model_id)
    assert (model.name, str(model.status), model.source_run_id) == ("model", "READY", finished.run.info.run_id)
    assert [output.model_id for output in finished.run.outputs.model_outputs] == [model.model_id]
    assert model.params["model.widths"] == "[16, 8]"
    linked = {(metric.key, metric.dataset_name, metric.dataset_digest) for metric in model.metrics}
    assert linked == {
        *((name, "validation", small.validation.digest) for name in AT_THE_END),
        *((name, "test", small.test.digest) for name in TEST),
    }


def test_the_model_loads_with_both_faces(finished, small):
    uri = f"models:/{finished.outcome.model_id}"
    images = small.test.images
    keras_model = mlflow.keras.load_model(uri)
    right = np.asarray(keras_model(images)).argmax(axis=1) == small.test.labels
    assert right.mean() == pytest.approx(finished.outcome.test.accuracy)
    served = mlflow.pyfunc.load_model(uri)
    assert np.array_equal(served.predict(images)["label"], np.asarray(keras_model(images)).argmax(axis=1))
    found = mlflow.models.get_model_info(uri)
    assert str(found.signature.inputs) == "[Tensor('uint8', (-1, 28, 28))]"


# how a run ends


def ended(client: mlflow.MlflowClient, error: BaseException | None) -> Any:
    with contextlib.suppress(BaseException), tracking.closing(tracking.start_run(client, "train", "run", "x")) as run:
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
    run = ended(connection.connect(), error)
    assert (run.info.status, run.data.tags.get("fmnist.error")) == (status, reason)
    assert run.info.end_time >= run.info.start_time


def test_closing_does_not_swallow_the_error(shared_store):
    run = tracking.start_run(connection.connect(), "train", "run", "x")
    with pytest.raises(ZeroDivisionError), tracking.closing(run):
        raise ZeroDivisionError


def test_a_run_that_mlflow_made_is_taken_over(shared_store, small):
    """As `mlflow run` does it: its own spelling of the params is there before, and may not be written twice."""
    client = connection.connect()
    made = client.create_run("0", tags={"mlflow.project.entryPoint": "train"})
    client.log_param(made.info.run_id, "training.learning_rate", "3e-3")
    client.log_param(made.info.run_id, "experiment", "tiny.yaml")
    run = tracking.start_run(client, "train", "tiny", "tiny", run_id=made.info.run_id)
    assert run.id == made.info.run_id
    tracking.log_start(run, CONFIG, small)
    tracking.log_start(run, CONFIG, small)
    found = client.get_run(run.id).data
    assert (found.params["training.learning_rate"], found.params["experiment"]) == ("3e-3", "tiny.yaml")
    assert found.params["training.epochs"] == "2"
    assert (found.tags["fmnist.kind"], found.tags["mlflow.project.entryPoint"]) == ("train", "train")
    assert client.get_run(run.id).info.run_name == "tiny"


def test_a_child_run_stands_in_its_parents_experiment(shared_store, monkeypatch):
    client = connection.connect()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "elsewhere")
    parent = tracking.start_run(client, "tune", "parent", "x")
    assert client.get_experiment(parent.experiment_id).name == "elsewhere"
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    child = tracking.start_run(client, "trial", "child", "x", parent)
    found = client.get_run(child.id)
    assert found.info.experiment_id == parent.experiment_id != "0"
    assert found.data.tags["mlflow.parentRunId"] == parent.id


def test_the_experiment_by_id(shared_store, monkeypatch):
    client = connection.connect()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", client.create_experiment("by id"))
    run = tracking.start_run(client, "train", "run", "x")
    assert client.get_experiment(run.experiment_id).name == "by id"


def test_many_params_and_metrics_in_one_call(shared_store):
    client = connection.connect()
    run = tracking.start_run(client, "train", "run", "x")
    run.params({f"p{i}": i for i in range(250)})
    run.metrics({f"m{i}": i for i in range(250)}, step=3)
    found = client.get_run(run.id).data
    assert (len(found.params), len(found.metrics), found.params["p249"]) == (250, 250, "249")
    assert run.logged_metrics("m24") == {f"m24{end}": float(f"24{end}") for end in ["", *range(10)]}


def test_artifacts_of_a_block_that_fails_are_not_logged(shared_store):
    client = connection.connect()
    run = tracking.start_run(client, "train", "run", "x")
    with contextlib.suppress(ZeroDivisionError), run.artifacts() as folder:
        (folder / "half.txt").write_text("half")
        raise ZeroDivisionError
    assert client.list_artifacts(run.id) == []


def test_a_model_that_cannot_be_logged_is_marked_as_failed(shared_store):
    client = connection.connect()
    run = tracking.start_run(client, "train", "run", "x")
    with pytest.raises(Exception, match="'str' object"):
        run.model("not a model", np.zeros((1, 28, 28), np.uint8), {})
    (model,) = client.search_logged_models([run.experiment_id], filter_string=f"source_run_id = '{run.id}'")
    assert str(model.status) == "FAILED"


# secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@host:5000/x", "https://***@host:5000/x"),
        ("postgresql://me:secret@host/db", "postgresql://***@host/db"),
        ("https://token@host and http://a:b@c", "https://***@host and http://***@c"),
        ("https://me:sec@ret@host/x", "https://***@host/x"),
        ("https://host/path@2x.png", "https://host/path@2x.png"),
        ("someone@example.org", "someone@example.org"),
    ],
)
def test_secrets_are_blanked(text, shown):
    assert connection.without_secrets(text) == shown


def test_no_secret_reaches_the_store(shared_store, small, monkeypatch):
    client = connection.connect()
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    monkeypatch.setattr(sys, "argv", ["fmnist-exp", "tune", "--storage", "postgresql://me:hunter2@host/db"])
    config = experiment_files.override(CONFIG, {"data.source": "https://me:hunter2@host/images"})
    with contextlib.suppress(WorkError), tracking.closing(tracking.start_run(client, "train", "r", "x")) as run:
        run.tag({"note": "https://me:hunter2@host"})
        tracking.log_start(run, config, FashionMNIST(small.train, small.validation, small.test, config.data.source))
        raise WorkError("https://me:hunter2@host is gone")
    assert client.get_run(run.id).data.params["data.source"] == "https://***@host/images"
    with contextlib.closing(sqlite3.connect("mlflow.db")) as database:
        assert "hunter2" not in "\n".join(database.iterdump())


# stores that cannot be used


def refused(monkeypatch, uri: str) -> str:
    """What connect() says within ten seconds; it waits in a thread, as it may take minutes when it is wrong."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    errors: list[BaseException] = []

    def connect() -> None:
        try:
            connection.connect()
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=connect, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive(), "still trying after 10 s"
    (error,) = errors
    assert isinstance(error, RequestError), repr(error)
    assert "\n" not in str(error)
    assert "hunter2" not in str(error)
    return str(error)


def test_a_server_that_is_not_there(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = refused(monkeypatch, f"http://me:hunter2@127.0.0.1:{port}")
    assert said == f"the tracking server http://***@127.0.0.1:{port} does not answer; is MLFLOW_TRACKING_URI right?"


def test_a_server_that_never_answers(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "does not answer" in refused(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize("status", [200, 401, 404, 503])
def test_a_server_that_is_not_mlflow(monkeypatch, status):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"hello")

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        said = refused(monkeypatch, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert f"127.0.0.1:{server.server_port}" in said


@pytest.mark.parametrize("uri", ["ftp://me:hunter2@host/x", "postgresql://me:hunter2@127.0.0.1:1/x", "./mlruns"])
def test_a_store_of_a_kind_that_does_not_work_here(monkeypatch, tmp_path, uri):
    monkeypatch.chdir(tmp_path)
    refused(monkeypatch, uri)


def test_a_database_where_no_folder_can_be(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    said = refused(monkeypatch, f"sqlite:///{tmp_path}/file/mlflow.db")
    assert said.startswith(f"the tracking store sqlite:///{tmp_path}/file/mlflow.db cannot be used: ")


def test_a_read_only_database(monkeypatch, tmp_path, new_database):
    """Opened by SQLite's own read-only mode, which binds root too."""
    new_database(tmp_path, str(tmp_path / "mlruns"))
    said = refused(monkeypatch, f"sqlite:///file:{tmp_path}/mlflow.db?mode=ro&uri=true")
    assert "read" in said


def test_a_file_that_is_no_database(monkeypatch, tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"no database " * 100)
    assert "not a database" in refused(monkeypatch, f"sqlite:///{tmp_path}/mlflow.db")


def test_connect_writes_no_run(shared_store):
    before = len(mlflow.MlflowClient().search_runs(["0"], max_results=1000))
    assert len(connection.connect().search_runs(["0"], max_results=1000)) == before
