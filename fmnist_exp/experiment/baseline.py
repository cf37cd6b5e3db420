"""The baselines that every model must beat: the naive guess, logistic regression and the smallest network."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from fmnist_exp.config.fields import flatten
from fmnist_exp.config.files import override
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.experiment.outcome import Outcome
from fmnist_exp.experiment.run import FitFunction, run_experiment
from fmnist_exp.models.blocks import PIXEL_DEVIATION, PIXEL_MEAN
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking.names import Metric
from fmnist_exp.tracking.run import Run
from fmnist_exp.training.events import Epoch, FitCallback
from fmnist_exp.training.fit import Fit, fit

PENALTY = 0.01  # scikit-learn's C, the inverse of the L2 penalty's weight
ITERATIONS = 100


def run_baselines(
    config: ExperimentConfig,
    data: FashionMNIST,
    parent: Run,
    display: Callable[[str, int, int], AbstractContextManager[FitCallback]],
) -> dict[str, Outcome]:
    """Run the three baselines as children of `parent`, score them on the test set and return the outcomes by name.

    Args:
        config: The experiment of the smallest network, from `resolve`.
        data: Its images.
        parent: The run that becomes the parent and gets all accuracies.
        display: Called with a baseline's name, its number of epochs, and 0 for those that are done; its callback
            follows the fit.
    """
    plan: dict[str, tuple[ExperimentConfig, FitFunction, int]] = {
        "naive guess": (override(config, {"model.family": "naive"}), fit, 1),
        "logistic regression": (config, fit_logistic_regression, 1),
        "smallest network": (config, fit, config.training.epochs),
    }
    parent.log_params(flatten(config))
    outcomes = {}
    for name, (child, fit_function, epochs) in plan.items():
        run = runs.start_run(parent.client, "baseline", name, config.name, parent)
        with runs.closing(run), display(name, epochs, 0) as callback:
            outcomes[name] = run_experiment(child, data, run, [callback], score_test=True, fit=fit_function)
    for name, outcome in outcomes.items():
        baseline = name.replace(" ", "_")
        scores = {"val": outcome.validation, "test": outcome.test}
        parent.log_metrics(
            {
                Metric.BASELINE_ACCURACY.format(baseline=baseline, split=split): scored.accuracy
                for split, scored in scores.items()
                if scored
            }
        )
    return outcomes


def fit_logistic_regression(
    model: keras.Model, config: ExperimentConfig, data: FashionMNIST, callbacks: Sequence[FitCallback]
) -> Fit:
    """Fit scikit-learn's logistic regression (L-BFGS) and copy its weights to the linear Keras model.

    Both are the same function. The fit counts as one epoch.
    """
    start = time.perf_counter()
    estimator = LogisticRegression(C=PENALTY, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # accuracy no longer rises after this many iterations
        estimator.fit(_features(data.train.images), data.train.labels)
    model.layers[-1].set_weights([estimator.coef_.T, estimator.intercept_])
    seconds = time.perf_counter() - start
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    metrics: dict[str, float] = {Metric.LEARNING_RATE: 0.0, Metric.EPOCH_SECONDS: seconds}
    for prefix, split in (("train", data.train), ("val", data.validation)):
        if len(split.images):
            measured = model.evaluate(split.images, split.labels, batch_size=1000, verbose=0, return_dict=True)
            metrics |= {f"{prefix}_loss": measured["loss"], f"{prefix}_accuracy": measured["accuracy"]}
    epoch = Epoch(1, metrics)
    for callback in callbacks:
        callback.on_epoch(epoch)
    return Fit((epoch,), epoch, seconds, len(data.train.images) * int(estimator.n_iter_.max()) / seconds, False)


def _features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return pixels (N, 784) on the scale of the Keras models' first layer."""
    scaled = (images.reshape(len(images), -1).astype(np.float32) / 255 - PIXEL_MEAN) / PIXEL_DEVIATION
    return scaled.astype(np.float32)
