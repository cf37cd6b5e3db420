"""A run leaves the same behind in the embedded store and on a real MLflow server; some stores cannot be used."""

import importlib.metadata
import json
import os
from collections.abc import Iterator

import mlflow
import numpy as np
import pytest
from support import services
from support.experiments import ARTIFACTS

from fmnist_exp.config import files
from fmnist_exp.config.fields import flatten
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.formats import CLASS_NAMES
from fmnist_exp.errors import RequestError
from fmnist_exp.evaluation.metrics import slug
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.experiment.outcome import Outcome
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store

CONFIG = files.override(
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
        "training.precision": "float32",
    },
)
PER_EPOCH = {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "epoch_seconds"}
CONDITIONS = {f"fmnist.{name}" for name in ("threads", "processor", "backend", "libraries", "code", "dirty")}
CONDITIONS |= {"fmnist.weights_sha256"}
AT_THE_END = {*("best_epoch", "best_val_accuracy", "best_val_loss", "fit_seconds", "images_per_second", "parameters")}
TEST = {"test_accuracy", "test_loss", "test_ece", *(f"test_accuracy_{slug(name)}" for name in CLASS_NAMES)}


@pytest.fixture(scope="module", params=["embedded", "server"])
def anywhere(request, tmp_path_factory, new_database) -> Iterator[str]:
    """The embedded store, then a server: what holds for one must hold for the other."""
    if request.param == "embedded":
        yield request.getfixturevalue("shared_store")
        return
    folder = tmp_path_factory.mktemp("server")
    database = new_database(folder, "mlflow-artifacts:")
    server = services.mlflow_server(folder, database, "127.0.0.1", services.free_port())
    with server as address, pytest.MonkeyPatch.context() as patch:
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
    client = store.connect()
    with runs.closing(runs.start_run(client, "train", "a tiny run", CONFIG.name)) as run:
        outcome = experiment_run.run_experiment(CONFIG, small, run, score_test=True)
    return Finished(client, outcome)


def history(finished: Finished, name: str) -> list[tuple[int, float]]:
    entries = finished.client.get_metric_history(finished.run.info.run_id, name)
    return [(entry.step, entry.value) for entry in entries]


# a finished run


def test_status_and_tags(finished):
    assert finished.run.info.status == "FINISHED"
    assert finished.run.info.run_name == "a tiny run"
    tags = finished.run.data.tags
    uri = f"models:/{finished.outcome.model_id}"
    for words in (finished.outcome.test.text, f"runs:/{finished.run.info.run_id}/experiment.yaml", uri):
        assert words in tags["mlflow.note.content"]
    own = {name: value for name, value in tags.items() if name.startswith("fmnist.")}
    expected = {"fmnist.kind", "fmnist.experiment", "fmnist.score_test", "fmnist.test_scored"}
    expected |= {"fmnist.spool_id", "fmnist.owner"}
    assert own.keys() - CONDITIONS == expected
    assert (own["fmnist.kind"], own["fmnist.experiment"]) == ("train", "tiny")
    assert all(own[name] for name in CONDITIONS)
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
    metrics = {name: value for name, value in finished.run.data.metrics.items() if not name.startswith("system/")}
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
    own = {name for name in finished.artifacts() if not name.startswith("checkpoint/")}
    assert own == {name for name in ARTIFACTS if not name.startswith("model/")}
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
    assert files.parse(store.download_text(uri), "another name") == CONFIG


def test_a_missing_artifact_is_a_wrong_request(finished):
    with pytest.raises(RequestError, match=r"no artifact runs:/.*/nothing\.yaml"):
        store.download_text(f"runs:/{finished.run.info.run_id}/nothing.yaml")
    with pytest.raises(RequestError, match="no artifact runs:/0123/experiment"):
        store.download_text("runs:/0123/experiment.yaml")


def test_the_model_is_linked_with_the_run_its_metrics_and_the_data(finished, small):
    model = finished.client.get_logged_model(finished.outcome.model_id)
    assert (model.name, str(model.status), model.source_run_id) == ("model", "READY", finished.run.info.run_id)
    outputs = {output.step: output.model_id for output in finished.run.outputs.model_outputs}
    assert outputs[0] == model.model_id
    assert max(outputs) == finished.outcome.fit.best.number  # of the newest checkpoint
    checkpoint = finished.client.get_logged_model(outputs[max(outputs)])
    assert (checkpoint.name, str(checkpoint.status)) == ("checkpoint", "READY")
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
