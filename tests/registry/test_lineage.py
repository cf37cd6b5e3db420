"""Logged models as a beginning and as members: found, checked, loaded, put together and registered."""

import hashlib
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from support import services
from support.searches import SPACE, configure, search

from fmnist_exp.config import files
from fmnist_exp.config.schema import DataConfig, ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.experiment.outcome import Outcome
from fmnist_exp.experiment.resolve import resolve
from fmnist_exp.registry import lineage, private_copy, versions
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store
from fmnist_exp.tuning import search as searching
from fmnist_exp.tuning.search import SearchRequest

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


def test_f5_averaged_answers_are_scored_and_logged_as_one_model(members, small):
    outcome = run(small, model__averaging="flip")
    found = store.connect().get_run(outcome.run_id)
    assert found.data.metrics["best_val_accuracy"] == outcome.validation.accuracy
    assert found.data.metrics["best_val_loss"] == outcome.validation.loss
    images = small.test.images[:50]
    both = answers(f"runs:/{outcome.run_id}", np.concatenate([images, images[:, :, ::-1]]))
    assert np.allclose(both[:50], both[50:], atol=1e-6)  # an image and its mirror image are one to it


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
    with versions.opened(client, version) as copy:
        listed = (copy.folder / "checksums.json").read_bytes()
    assert not copy.folder.exists()
    assert version.tags["sha256"] == hashlib.sha256(listed).hexdigest()
    assert client.get_logged_model(outcome.model_id).tags["fmnist.sha256"] == version.tags["sha256"]
    description = versions.find(client, str(version.version)).description
    accuracies = f"Test accuracy {outcome.test.text}, validation accuracy {outcome.validation.text}"
    assert accuracies in description
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
def test_f1_a_model_that_knows_the_held_out_images_is_refused(members, small, field):
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
    location = client.get_logged_model(version.source.removeprefix("models:/")).artifact_location
    file = Path(location.removeprefix("file://")) / "data" / "model.keras"
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


# the search space names models, too


@pytest.mark.parametrize("alias", [False, True], ids=["run", "alias"])
@pytest.mark.parametrize("field", ["model.warm_start", "model.members"])
def test_f1_a_search_is_refused_if_a_choice_knows_its_validation_images(members, small, tmp_path, field, alias):
    origin = members[alias]
    choices = [None, origin] if field == "model.warm_start" else [[], [origin, origin]]
    config = configure(search__space={**SPACE, field: {"choices": choices}}, model__widths=[16], seed=3)
    others = small.resplit(DataConfig(validation_fraction=0.25), seed=3)
    client, storage = store.connect(), f"sqlite:///{tmp_path}/leak.db"
    before = len(client.search_runs(["0"]))
    with pytest.raises(RequestError, match="was trained on other images"):
        searching.run(SearchRequest(config=config, study="leak", storage=storage, workers=1, data=others))
    assert list(tmp_path.iterdir()) == [], "no study was written"
    assert len(client.search_runs(["0"])) == before
    resolved = resolve(config, small).config.search.space[field].choices  # of the same split, they are no leak
    assert origin not in resolved or not alias, "the study names a version, since an alias may move"


def test_f1_a_refit_on_all_images_is_no_origin_of_a_trial(members, small):
    everything = run(small.without_holdout(), data__validation_fraction=0)
    config = configure(search__space={**SPACE, "model.warm_start": {"choices": [None, f"runs:/{everything.run_id}"]}})
    with pytest.raises(RequestError, match="was trained on other images"):
        resolve(config, small)


@pytest.fixture(scope="module")
def of_a_split(members, small) -> tuple[FashionMNIST, str]:
    """All images, split, and the address of a model that was trained on the training images of this split."""
    config = DataConfig(validation_fraction=0.25, gate_fraction=0.1)
    split = small.resplit(config, seed=0)
    fields = {"data__validation_fraction": 0.25, "data__gate_fraction": 0.1}
    return split, f"runs:/{run(split, **fields).run_id}"


NOTHING = {"data__validation_fraction": 0, "data__gate_fraction": 0}


def test_where_nothing_is_held_out_an_origin_may_know_some_of_the_images(of_a_split):
    """So a refit of a setting with model.warm_start, or its experiment.yaml, can be run again."""
    split, origin = of_a_split
    refit = run(split.without_holdout(), **NOTHING, model__warm_start=origin)
    assert store.connect().get_run(refit.run_id).data.tags["fmnist.warm_layers"] == "2"
    address = f"runs:/{refit.run_id}/experiment.yaml"
    config = files.parse_logged(mlflow.artifacts.load_text(address), address)
    assert resolve(config, split.without_holdout()).config.model.warm_start == origin


def test_f1_an_origin_of_another_split_is_refused_as_soon_as_something_is_held_out(of_a_split):
    split, origin = of_a_split
    everything = split.without_holdout()
    for held_out in ({"validation_fraction": 0.25}, {"gate_fraction": 0.1}):
        data = everything.resplit(DataConfig(**{"validation_fraction": 0, "gate_fraction": 0, **held_out}), seed=1)
        with pytest.raises(RequestError, match=r"may know those held out here.*data\.split_seed"):
            lineage.find_trained_on(store.connect(), origin, data)


def test_f1_an_origin_of_other_images_is_refused_where_nothing_is_held_out(of_a_split):
    split, origin = of_a_split
    labels = np.roll(split.without_holdout().train.labels, 1)
    others = replace(split.without_holdout(), train=Split("train", split.without_holdout().train.images, labels))
    with pytest.raises(RequestError, match=f"{origin} was trained on other images than those from"):
        lineage.find_trained_on(store.connect(), origin, others)


def test_trials_start_from_the_weights_of_a_choice(members, small):
    choices = {"choices": [None, members[1]]}
    config = configure(search__space={"model.warm_start": choices, "model.dropout": SPACE["model.dropout"]})
    found = search(files.override(config, {"model.widths": [16]}), "choices", data=small)
    named = [trial.params["model.warm_start"] for trial in found.trials]
    assert set(named) <= {"null", '"models:/fashion-mnist/1"'}
    copied = [child.data.tags.get("fmnist.warm_layers") for child in found.children()]
    assert [name == "null" for name in named] == [tag is None for tag in copied]


def test_f5_a_search_for_averaging_optimises_the_accuracy_of_the_logged_network(shared_store, small):
    space = {"model.averaging": {"choices": ["none", "flip_shift"]}, "training.epochs": {"low": 1, "high": 2}}
    found = search(configure(search__space=space, search__n_trials=2, model__averaging="flip_shift"), "avg", data=small)
    for trial, child in zip(found.trials, found.children(), strict=True):
        model = lineage.find(found.client, f"runs:/{child.info.run_id}").load_keras()
        answers = np.asarray(model(small.validation.images)).argmax(axis=1)
        expected = float(np.mean(answers == small.validation.labels))
        assert trial.value == pytest.approx(expected)
        assert child.data.metrics["best_val_accuracy"] == pytest.approx(expected)
    best = found.client.get_model_version_by_alias("fashion-mnist", "challenger")
    assert float(best.tags["val_accuracy"]) == pytest.approx(max(trial.value for trial in found.trials))


def test_an_answer_that_is_lost_says_nothing_about_a_model(monkeypatch):
    """It may not be refused for good as a model that is not there."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    nowhere = MlflowClient(f"http://127.0.0.1:{services.free_port()}")
    with pytest.raises(MlflowException, match="Connection refused"), private_copy.opened(nowhere, f"m-{'0' * 32}"):
        raise AssertionError("it was opened")
