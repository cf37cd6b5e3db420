"""Logged models as a beginning and as members: found, checked, loaded, put together and registered."""

import hashlib

import mlflow
import numpy as np
import pytest
import yaml

from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.experiment.outcome import Outcome
from fmnist_exp.experiment.resolve import resolve
from fmnist_exp.registry import lineage, versions
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store

TINY = {
    "name": "tiny",
    "model.family": "mlp",
    "model.widths": [16],
    "training.epochs": 2,
    "training.batch_size": 50,
    "training.learning_rate": 3e-3,
    "training.steps_per_execution": 1,
}


def run(data: FashionMNIST, **changes) -> Outcome:
    config = files.override(ExperimentConfig(), TINY | {k.replace("__", "."): v for k, v in changes.items()})
    client = store.connect()
    config = resolve(config, data, client).config
    with runs.closing(runs.start_run(client, "train", config.name, config.name)) as open_run:
        return experiment_run.run_experiment(config, data, open_run, score_test=True)


@pytest.fixture(scope="module")
def members(shared_store, small) -> list[str]:
    """A run, and the champion made of another."""
    first, second = run(small), run(small, seed=1)
    client = store.connect()
    version = versions.register(client, second.model_id, second.run_id, {})
    client.set_registered_model_alias("fashion-mnist", "champion", version.version)
    return [f"runs:/{first.run_id}", "models:/fashion-mnist@champion"]


def answers(uri: str, images: np.ndarray) -> np.ndarray:
    return np.asarray(lineage.find(store.connect(), uri).load_keras()(images))


def test_an_ensemble_is_one_model_that_names_its_members(members, small):
    outcome = run(small, name="both", model__members=members)
    found = store.connect().get_run(outcome.run_id)
    canonical = [members[0], "models:/fashion-mnist/1"]  # an alias may move
    text = mlflow.artifacts.load_text(f"runs:/{outcome.run_id}/experiment.yaml")
    assert yaml.safe_load(text)["model"]["members"] == canonical
    assert found.data.params["model.members"] == str(canonical)
    images = small.test.images[:50]
    expected = np.mean([answers(uri, images) for uri in members], axis=0)
    assert np.allclose(answers(f"runs:/{outcome.run_id}", images), expected, atol=1e-6)
    served = mlflow.pyfunc.load_model(f"models:/{outcome.model_id}").predict(images)
    assert np.allclose(served[[f"p{label}" for label in range(10)]], expected, atol=1e-4)
    assert found.data.metrics["test_accuracy"] == outcome.test.accuracy
    assert outcome.parameters == 2 * (784 * 16 + 16 + 16 * 10 + 10)


def test_averaged_answers_are_scored_and_logged_as_one_model(members, small):
    outcome = run(small, model__averaging="flip")
    found = store.connect().get_run(outcome.run_id)
    assert found.data.metrics["averaged_val_accuracy"] == outcome.validation.accuracy
    images = small.test.images[:50]
    both = answers(f"runs:/{outcome.run_id}", np.concatenate([images, images[:, :, ::-1]]))
    assert np.allclose(both[:50], both[50:], atol=1e-6)  # an image and its mirror image are one to it
    assert "averaged_val_accuracy" not in store.connect().get_run(members[0][6:]).data.metrics


def test_an_ensemble_becomes_a_version(members, small):
    config = files.override(ExperimentConfig(), TINY | {"model.members": members})
    client = store.connect()
    config = resolve(config, small, client).config
    with runs.closing(runs.start_run(client, "train", "both", "both")) as open_run:
        outcome = experiment_run.run_experiment(config, small, open_run, score_test=True)
        version = versions.register(client, outcome.model_id, open_run.id, outcome.version_tags(open_run, small))
    assert client.get_model_version_by_alias("fashion-mnist", "challenger").version == version.version
    assert float(version.tags["test_accuracy"]) == outcome.test.accuracy
    assert {"val_accuracy", "data_digest", "git_commit"} <= version.tags.keys()
    listed = versions.files(version) / "checksums.json"
    assert version.tags["sha256"] == hashlib.sha256(listed.read_bytes()).hexdigest()
    description = versions.find(client, str(version.version)).description
    assert f"Test accuracy {outcome.test.accuracy:.2%}, validation accuracy" in description
    assert f"fmnist-exp serve --model models:/fashion-mnist/{version.version}" in description


def test_a_warm_start_begins_better_and_says_what_it_took(members, small):
    cold = run(small, training__epochs=1)
    warm = run(small, training__epochs=1, model__warm_start=members[1])
    assert warm.fit.epochs[0].metrics["train_loss"] < cold.fit.epochs[0].metrics["train_loss"]
    found = store.connect().get_run(warm.run_id)
    assert found.data.tags["fmnist.warm_layers"] == "2"
    assert found.data.params["model.warm_start"] == "models:/fashion-mnist/1"


def test_frozen_layers_stay_those_of_the_origin(members, small):
    warm = run(small, model__warm_start=members[0], model__frozen=1)
    ours, theirs = (
        lineage.find(store.connect(), uri).load_keras().get_weights() for uri in (f"runs:/{warm.run_id}", members[0])
    )
    assert [np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)] == [True, True, False, False]


@pytest.mark.parametrize("field", ["model__members", "model__warm_start"])
def test_a_model_that_knows_the_held_out_images_is_refused(members, small, field):
    swapped = FashionMNIST(
        Split("train", small.train.images[::-1].copy(), small.train.labels[::-1].copy()),
        small.validation,
        small.test,
        small.source,
    )
    value = [members[0], members[1]] if field == "model__members" else members[0]
    with pytest.raises(RequestError, match=r"trained on other images.*data\.split_seed"):
        run(swapped, **{field: value})


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("runs:/nothing", "its run 'nothing' is not in this tracking store"),
        ("models:/fashion-mnist@nobody", "has no alias 'nobody'; versions: 1"),
        ("models:/fashion-mnist/99", "has no version 99; versions: 1"),
        ("nonsense", "must be models:/fashion-mnist@ALIAS"),
    ],
)
def test_a_missing_model_is_one_sentence(members, small, uri, words):
    with pytest.raises(RequestError, match=words):
        run(small, model__warm_start=uri)
    assert store.connect().search_runs(["0"], "attributes.status = 'RUNNING'") == []


def test_another_network_cannot_begin_from_it(members, small):
    with pytest.raises(RequestError, match="its first layer"):
        run(small, model__warm_start=members[0], model__widths=[17])
    with pytest.raises(RequestError, match=r"model\.frozen=2: must be below 2"):
        run(small, model__frozen=2)


def test_changed_files_of_a_version_are_refused(members, small):
    client = store.connect()
    version = client.get_model_version("fashion-mnist", "1")
    file = versions.download(str(version.source)) / "data" / "model.keras"
    content = file.read_bytes()
    file.write_bytes(content + b"x")
    try:
        with pytest.raises(WorkError, match=r"not those that were registered: data/model\.keras"):
            run(small, model__warm_start="models:/fashion-mnist/1")
    finally:
        file.write_bytes(content)


def test_members_are_not_trained_again():
    with pytest.raises(RequestError, match=r"model\.members.*not trained"):
        files.override(ExperimentConfig(), {"model.members": ["runs:/a"], "model.frozen": 1})
