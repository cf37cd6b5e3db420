"""The bars that every model must clear: the naive guess, logistic regression, and the smallest network."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.config.fields import flatten
from fmnist_exp.config.files import override
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.models.blocks import PIXEL_DEVIATION, PIXEL_MEAN
from fmnist_exp.tracking import run as runs
from fmnist_exp.training.events import Epoch, FitCallback
from fmnist_exp.training.fit import Fit, fit

if TYPE_CHECKING:
    import keras

    from fmnist_exp.experiment.run import Outcome
    from fmnist_exp.tracking.run import Run

PENALTY = 0.01  # scikit-learn's C, the inverse of the L2 penalty's weight
ITERATIONS = 100


def run_baselines(
    config: ExperimentConfig,
    data: FashionMNIST,
    parent: Run,
    display: Callable[[str, int], AbstractContextManager[FitCallback]],
) -> dict[str, Outcome]:
    """Run the three baselines as children of `parent`, scored on the test set: name → outcome.

    `display` is given a name and a number of epochs, and watches while its block lasts.
    """
    naive = override(config, {"model.family": "naive"})
    plan: dict[str, tuple[ExperimentConfig, Any]] = {
        "naive guess": (naive, fit),
        "logistic regression": (config, fit_logistic_regression),
        "smallest network": (config, fit),
    }
    parent.log_params(flatten(config))
    outcomes = {}
    for name, (child, fit_function) in plan.items():
        with runs.closing(runs.start_run(parent.client, "baseline", name, config.name, parent)) as run:
            epochs = child.training.epochs if name == "smallest network" else 1
            with display(name, epochs) as watching:
                outcomes[name] = experiment_run.run_experiment(
                    child, data, run, [watching], score_test=True, fit=fit_function
                )
    for name, outcome in outcomes.items():
        prefix = name.replace(" ", "_")
        for split, evaluated in (("val", outcome.validation), ("test", outcome.test)):
            parent.log_metrics({f"{prefix}_{split}_accuracy": evaluated.accuracy} if evaluated else {})
    return outcomes


def fit_logistic_regression(
    model: keras.Model, config: ExperimentConfig, data: FashionMNIST, callbacks: Sequence[FitCallback]
) -> Fit:
    """Fit scikit-learn's logistic regression (L-BFGS); its weights go into the linear Keras model, the same function.

    Counts as one epoch.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    start = time.perf_counter()
    estimator = LogisticRegression(C=PENALTY, max_iter=ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the limit is meant: accuracy stands still by then
        estimator.fit(_features(data.train.images), data.train.labels)
    model.layers[-1].set_weights([estimator.coef_.T, estimator.intercept_])
    seconds = time.perf_counter() - start
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    metrics = {"learning_rate": 0.0, "epoch_seconds": seconds}
    for prefix, split in (("train", data.train), ("val", data.validation)):
        if not len(split.images):
            continue
        measured = model.evaluate(split.images, split.labels, batch_size=1000, verbose=0, return_dict=True)
        metrics |= {f"{prefix}_loss": measured["loss"], f"{prefix}_accuracy": measured["accuracy"]}
    epoch = Epoch(1, metrics)
    for callback in callbacks:
        callback.on_epoch(epoch)
    return Fit((epoch,), epoch, seconds, len(data.train.images) * int(estimator.n_iter_.max()) / seconds, False)


def _features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels (N, 784) on the scale of the Keras models' first layer."""
    scaled = (images.reshape(len(images), -1).astype(np.float32) / 255 - PIXEL_MEAN) / PIXEL_DEVIATION
    return scaled.astype(np.float32)
