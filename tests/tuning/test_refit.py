"""Fits without validation images, and the winner of a search fitted again on all of them."""

import mlflow
import numpy as np
import pytest
from support.searches import FinishedSearch, configure, search

from fmnist_exp.config import files
from fmnist_exp.config.fields import flatten
from fmnist_exp.config.schema import DataConfig, ExperimentConfig
from fmnist_exp.data import cache as cache_files
from fmnist_exp.data import dataset
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError
from fmnist_exp.evaluation import intervals
from fmnist_exp.experiment import checkpoints
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.experiment.resolve import resolve
from fmnist_exp.registry import evaluate as evaluations
from fmnist_exp.registry import lineage
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store
from fmnist_exp.tracking.names import Tag
from fmnist_exp.training import fit as fitting
from fmnist_exp.training.events import Epoch
from fmnist_exp.tuning import checks, refit
from fmnist_exp.tuning.space import SearchSpace


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_files, "cache_folder", lambda: tmp_path_factory.mktemp("cache"))
        yield


def load(config: ExperimentConfig) -> FashionMNIST:
    return dataset.load(config.data, config.seed)


# without validation images


def test_nothing_is_held_out(folder):
    loaded = dataset.load(DataConfig(source=folder, validation_fraction=0, gate_fraction=0), seed=3)
    assert len(loaded.train.images) == 800
    assert loaded.validation.images.shape == (0, 28, 28)
    again = dataset.load(DataConfig(source=folder, validation_fraction=0, gate_fraction=0), seed=4)
    assert loaded.train.digest == again.train.digest


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"data.validation_fraction": 0.005}, "data.validation_fraction must be 0 or at least 0.01"),
        ({"training.patience": 3}, "leaves no validation images, which training.patience requires"),
        ({"training.schedule": "plateau"}, "leaves no validation images, which training.schedule=plateau requires"),
        ({"training.checkpoint": True}, "leaves no validation images, which training.checkpoint requires"),
        (
            {"search.space": {"model.dropout": {"low": 0, "high": 0.5}}},
            "leaves no validation images, which search requires",
        ),
    ],
)
def test_what_would_need_validation_images_is_refused(given, reason):
    with pytest.raises(RequestError) as raised:
        files.override(ExperimentConfig(), {"data.validation_fraction": 0, **given})
    assert reason in str(raised.value)


@pytest.fixture(scope="module")
def alone(shared_store, folder) -> mlflow.entities.Run:
    """A single run on all images, with averaged weights."""
    changes = {"data.source": folder, "data.validation_fraction": 0, "training.ema": 0.5, "training.epochs": 2}
    config = files.override(configure().model_copy(update={"search": None}), changes)
    client = store.connect()
    run = runs.start_run(client, "train", "alone", "alone")
    with runs.closing(run):
        outcome = experiment_run.run_experiment(config, load(config), run, score_test=True)
    assert outcome.validation is None
    assert outcome.fit.best.number == 2
    assert "val_accuracy" not in outcome.version_tags(run, load(config))
    return client.get_run(run.id)


def test_a_run_without_validation_images_says_nothing_of_them(alone):
    assert alone.info.status == "FINISHED"
    metrics = set(alone.data.metrics)
    assert {"train_loss", "train_accuracy", "best_epoch", "images_per_second", "test_accuracy"} <= metrics
    assert not [name for name in metrics if "val_" in name]
    assert {entry.tags[0].value for entry in alone.inputs.dataset_inputs} == {"training", "gate", "test"}
    assert alone.data.metrics["images_per_second"] < 1e6  # the seconds are counted without a validation that starts


def test_the_last_epochs_averaged_weights_are_kept(folder):
    """Keras puts the averages in at a fit's end; with early stopping our callback does so before each validation."""
    changes = {"data.source": folder, "data.validation_fraction": 0, "training.ema": 0.9, "training.epochs": 1}
    config = files.override(configure().model_copy(update={"search": None}), changes)
    from fmnist_exp import models
    from fmnist_exp.backend import seeds

    seeds.prepare(config.seed, "float32")
    model = models.build(config.model)
    fitting.fit(model, config, load(config))
    averages = model.optimizer._model_variables_moving_average
    for weight, average in zip(model.trainable_variables, averages, strict=True):
        assert np.array_equal(weight, average)


# a search's winner


@pytest.fixture(scope="module")
def searched(shared_store, folder) -> FinishedSearch:
    config = configure(data__source=folder, search__n_trials=2, search__refit=2, search__keep=1)
    return search(config, "refitted")


def test_the_winner_is_fitted_again_with_each_seed(searched):
    best = searched.result.ranked[0]
    trial = searched.client.get_run(best.run_id)
    first, second, together = searched.children("train")
    for seed, run in enumerate((first, second)):
        own, epochs = trial.data.params, f"{trial.data.metrics['best_epoch']:.0f}"
        fixed = {"data.validation_fraction": "0.0", "data.gate_fraction": "0.0"}
        fixed |= {"seed": str(seed), "training.epochs": epochs}
        names = [name for name in flatten(ExperimentConfig()) if name not in fixed]
        assert {name: run.data.params[name] for name in names} == {name: own[name] for name in names}
        assert {name: run.data.params[name] for name in fixed} == fixed
        assert run.data.tags[Tag.REFIT_OF] == best.run_id
    assert together.data.params["model.members"] == str([f"runs:/{run.info.run_id}" for run in (first, second)])
    assert len(searched.children("trial")) == 2


def test_the_version_is_the_mean_of_the_seeds(searched, folder):
    first, second, together = searched.children("train")
    version = searched.client.get_model_version("fashion-mnist", searched.result.registration.version)
    best = searched.result.ranked[0]
    assert version.run_id == together.info.run_id
    assert version.tags["refit_of"] == best.run_id
    assert float(version.tags["val_accuracy"]) == pytest.approx(best.val_accuracy)
    assert version.tags["data_digest"] == dataset.load(DataConfig(source=folder), 0).without_holdout().train.digest
    pixels = load(searched_config(folder)).test.images[:50]
    asked = [mlflow.keras.load_model(f"runs:/{run.info.run_id}/model")(pixels) for run in (first, second, together)]
    assert np.allclose((asked[0] + asked[1]) / 2, asked[2], atol=1e-6)


def searched_config(folder: str) -> ExperimentConfig:
    return configure(data__source=folder)


@pytest.mark.parametrize("field", ["model.warm_start", "model.members"])
def test_f1_a_search_stands_for_the_refit_that_saw_its_validation_images(searched, folder, field):
    """The search records the images of its trials, but its model was trained on all of them."""
    origin = f"runs:/{searched.parent.info.run_id}"
    together = searched.children("train")[-1]
    assert lineage.find(searched.client, origin).run.info.run_id == together.info.run_id
    nothing, value = (None, origin) if field == "model.warm_start" else ([], [origin, origin])
    for config in (configure(**{field: value}), configure(search__space={field: {"choices": [nothing, value]}})):
        with pytest.raises(RequestError, match="was trained on other images"):
            resolve(config, load(searched_config(folder)), searched.client)


def test_only_the_version_is_scored_on_the_test_set(searched):
    scored = [
        run for kind in ("trial", "train") for run in searched.children(kind) if "test_accuracy" in run.data.metrics
    ]
    assert [run.info.run_id for run in scored] == [searched.children("train")[-1].info.run_id]
    assert searched.parent.data.metrics["test_accuracy"] == searched.result.test_accuracy


def test_the_gate_knows_which_images_the_setting_was_not_fitted_on(searched, folder):
    version = searched.client.get_model_version("fashion-mnist", searched.result.registration.version)
    subject = lineage.trace(searched.client, version)
    assert subject.refit
    held_out = subject.held_out.split(dataset.load(DataConfig(source=str(folder)), seed=0)).validation
    assert len(held_out.images) == 80
    answers = subject.held_out.load_predictor().probabilities(held_out.images).argmax(axis=1)
    assert np.mean(answers == held_out.labels) == pytest.approx(searched.result.ranked[0].val_accuracy)


def test_the_card_describes_the_network_that_serves(searched, folder):
    """F11: the numbers are those of the version's own run, and it takes no temperature from another network."""
    number, best = searched.result.registration.version, searched.result.ranked[0]
    config = searched_config(folder)
    with pytest.raises(RequestError, match="trained on all images, and the temperature of another network does not"):
        evaluations.evaluate(f"models:/fashion-mnist/{number}", config, temperature=True)
    found, run_id = evaluations.evaluate(f"models:/fashion-mnist/{number}", config)
    assert found.lineage.run.info.run_id == searched.children("train")[-1].info.run_id
    card = mlflow.artifacts.load_text(f"runs:/{run_id}/model_card.md")
    assert f"| parameters | {2 * best.parameters:,} |" in card
    assert "| fit | none of its own: it averages the probabilities of its members |" in card
    assert "| time of the fit" not in card
    assert "| training images | 800, digest " in card
    assert "| validation images | none |" in card
    accuracy = intervals.text(best.val_accuracy, 80)
    assert f"| validation accuracy of the judged network | {accuracy} |" in card
    assert f"| judged network, from run | {best.run_id} |" in card
    assert "The version has no temperature, because it has seen all images" in card
    version = searched.client.get_model_version("fashion-mnist", number)
    assert "temperature" not in version.tags


def test_what_was_fitted_again_is_not_fitted_a_third_time(searched, folder):
    before = [run.info.run_id for run in searched.children("train")]
    tags = {"fmnist.study": "refitted", Tag.REFIT_OF: "a trial that was the best before"}
    killed = runs.start_run(searched.client, "train", "refit of another", "tiny_search", more_tags=tags)
    config = configure(data__source=folder, search__n_trials=2, search__refit=2, search__keep=1)
    again = search(config, "refitted")
    assert searched.client.get_run(killed.id).info.status == "KILLED"
    assert [run.info.run_id for run in again.children("train")] == before
    assert again.result.registration.version == searched.result.registration.version
    assert again.result.retention.deleted == 0


def test_an_interrupted_refit_continues_in_its_run(shared_store, folder, monkeypatch):
    config = configure(data__source=folder, search__n_trials=1, search__refit=1, training__schedule="one_cycle")
    config = files.override(config, {"training.epochs": 4})
    fitted, log_epoch = list[int](), checkpoints.EpochLog.on_epoch

    def interrupt_once(log: checkpoints.EpochLog, epoch: Epoch) -> bool:
        if log.run.kind == "train" and epoch.number == 3 and 3 not in fitted:
            fitted.append(3)
            raise KeyboardInterrupt
        return log_epoch(log, epoch)

    monkeypatch.setattr(checkpoints, "PAUSE", 0.0)
    monkeypatch.setattr(checkpoints.EpochLog, "on_epoch", interrupt_once)
    stopped = search(config, "stopped in its refit")
    assert stopped.result.status == "interrupted"
    (before,) = stopped.children("train")
    assert before.info.status == "KILLED"
    continued, whole = search(config, "stopped in its refit"), search(config, "not stopped")
    (run,), (other,) = continued.children("train"), whole.children("train")
    assert (run.info.run_id, run.info.status) == (before.info.run_id, "FINISHED")
    assert run.data.tags["fmnist.resumptions"] == "1"
    for name in ("train_loss", "train_accuracy"):
        curves = [continued.client.get_metric_history(each.info.run_id, name) for each in (run, other)]
        assert [point.step for point in curves[0]] == [1, 2, 3, 4]
        assert [point.value for point in curves[0]] == pytest.approx([point.value for point in curves[1]], rel=1e-4)
    states = {entry.path for entry in continued.client.list_artifacts(run.info.run_id, "checkpoint")}
    assert not states, "the states are not needed any more"
    version = continued.client.get_model_version("fashion-mnist", continued.result.registration.version)
    assert version.run_id == run.info.run_id


def test_seeds_and_epochs():
    from optuna.trial import FrozenTrial, TrialState

    params = {"model.dropout": 0.2, "training.learning_rate": 0.01, "model.widths.depth": 1}
    params |= {"model.widths.1": 8, "model.widths.2": 8}
    best = FrozenTrial(0, TrialState.COMPLETE, 0.9, None, None, params, {}, {"best_epoch": 5}, {}, {}, 0)
    patient = configure(search__refit=2, training__epochs=9, training__patience=3, seed=2**32 - 1)
    plan = refit.plan(SearchSpace(patient), best)
    assert [(one.seed, one.training.epochs, one.training.patience) for one in plan] == [
        (2**32 - 1, 5, None),
        (0, 5, None),
    ]
    cycle = configure(search__refit=1, training__epochs=9, training__schedule="one_cycle")
    assert [one.training.epochs for one in refit.plan(SearchSpace(cycle), best)] == [9]


@pytest.mark.parametrize(
    "changes",
    [
        {"training__schedule": "plateau"},
        {"search__space": {"training.schedule": {"choices": ["constant", "plateau"]}}},
    ],
)
def test_a_schedule_that_watches_validation_cannot_be_fitted_again(changes):
    with pytest.raises(
        RequestError, match=r"search\.refit leaves no validation images, which training\.schedule=plateau"
    ):
        checks.check(configure(search__refit=1, **changes))
