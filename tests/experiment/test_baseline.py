"""The three bars: what each run has, and that the Keras copy of scikit-learn's model is the same function."""

import contextlib
import warnings
from collections.abc import Iterator

import mlflow
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from fmnist_exp import models
from fmnist_exp.backend import inference, seeds
from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import Split
from fmnist_exp.evaluation import metrics
from fmnist_exp.experiment import baseline
from fmnist_exp.experiment.train import TrainRequest
from fmnist_exp.training import logistic_regression
from fmnist_exp.training.events import Epoch, FitCallback

CONFIG = files.override(
    ExperimentConfig(),
    {
        "name": "bars",
        "model.family": "linear",
        "training.epochs": 2,
        "training.batch_size": 50,
        "training.steps_per_execution": 1,
    },
)


def test_the_keras_model_is_scikit_learns_model(small):
    seeds.prepare(0, "float32")
    model = models.build(CONFIG.model)
    fitted = baseline.fit_logistic_regression(model, CONFIG, small, ())

    def pixels(split: Split) -> np.ndarray:
        scaled = (split.images.reshape(len(split.images), 784).astype(np.float32) / 255 - 0.286) / 0.353
        return scaled.astype(np.float32)

    estimator = LogisticRegression(C=logistic_regression.PENALTY, max_iter=logistic_regression.ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the baseline stops early on purpose
        estimator.fit(pixels(small.train), small.train.labels)
    expected = estimator.predict_proba(pixels(small.test))
    assert np.abs(inference.predict(model, small.test.images) - expected).max() < 1e-4
    assert fitted.best.metrics["val_accuracy"] > 0.65
    assert fitted.epochs == (fitted.best,)


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_f12_the_loss_of_the_logistic_regression_is_its_cross_entropy(small, penalty):
    config = files.override(CONFIG, {"model.l2": penalty})
    seeds.prepare(0, "float32")
    model = models.build(config.model)
    fitted = baseline.fit_logistic_regression(model, config, small, ())
    for prefix, split in (("train", small.train), ("val", small.validation)):
        scored = metrics.evaluate(inference.predict(model, split.images), split.labels, split.name)
        assert fitted.best.metrics[f"{prefix}_loss"] == pytest.approx(scored.loss, rel=1e-4)
        assert fitted.best.metrics[f"{prefix}_accuracy"] == pytest.approx(scored.accuracy)


def test_three_children_and_their_scores_on_the_parent(store, small):
    shown: list[tuple[str, int]] = []
    epochs: dict[str, int] = {}

    class Counter(FitCallback):
        def on_epoch(self, epoch: Epoch) -> bool:
            epochs[shown[-1][0]] = epoch.number
            return False

    @contextlib.contextmanager
    def display(name: str, count: int, done: int) -> Iterator[FitCallback]:
        shown.append((name, count))
        yield Counter()

    client = mlflow.MlflowClient()
    result = baseline.run_baselines(TrainRequest(experiment=CONFIG, data=small, display=display))
    outcomes = result.outcomes
    assert shown == [("naive guess", 1), ("logistic regression", 1), ("smallest network", 2)]
    assert epochs == {"naive guess": 1, "logistic regression": 1, "smallest network": 2}
    assert list(outcomes) == ["naive guess", "logistic regression", "smallest network"]
    accuracies = {name: outcome.test.accuracy for name, outcome in outcomes.items()}
    assert accuracies["naive guess"] == pytest.approx(0.1)
    assert accuracies["logistic regression"] > 0.65
    assert accuracies["smallest network"] > 0.4
    assert outcomes["naive guess"].parameters == 0
    assert outcomes["smallest network"].parameters == outcomes["logistic regression"].parameters == 7850

    children = client.search_runs(["0"], f"tags.mlflow.parentRunId = '{result.run_id}'")
    kinds = {(child.info.run_name, child.info.status, child.data.tags["fmnist.kind"]) for child in children}
    assert kinds == {(name, "FINISHED", "baseline") for name in outcomes}
    families = {child.info.run_name: child.data.params["model.family"] for child in children}
    assert families == {"naive guess": "naive", "logistic regression": "linear", "smallest network": "linear"}
    logged = client.get_run(result.run_id).data.metrics
    assert logged["naive_guess_test_accuracy"] == pytest.approx(0.1)
    for name, outcome in outcomes.items():
        assert logged[f"{name.replace(' ', '_')}_val_accuracy"] == pytest.approx(outcome.validation.accuracy)
