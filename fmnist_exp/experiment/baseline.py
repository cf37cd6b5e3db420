"""The baselines that every model must beat: the naive guess, logistic regression and the smallest network."""

import time
from collections.abc import Sequence

import keras

from fmnist_exp.config.fields import flatten
from fmnist_exp.config.files import override
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST, load
from fmnist_exp.experiment import resolve
from fmnist_exp.experiment.outcome import baselines_note
from fmnist_exp.experiment.run import FitFunction, run_experiment
from fmnist_exp.experiment.train import TrainRequest, TrainResult
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking.names import Metric, Tag
from fmnist_exp.training import logistic_regression
from fmnist_exp.training.callbacks import CROSS_ENTROPY, losses
from fmnist_exp.training.events import Epoch, FitCallback
from fmnist_exp.training.fit import Fit, fit


def run_baselines(request: TrainRequest) -> TrainResult:
    """Run each baseline as a child run of one parent run. The request's experiment is the smallest network.

    Each baseline is scored on the test set, unless the request forbids it, and the parent run gets all accuracies.
    """
    assert isinstance(request.experiment, ExperimentConfig)
    data = request.data or load(request.experiment.data, request.experiment.seed)
    resolved = resolve.resolve(request.experiment, data, offline=request.offline)
    config, client, outcomes = resolved.config, resolved.client, {}
    plan: dict[str, tuple[ExperimentConfig, FitFunction, int]] = {  # with the number of epochs
        "naive guess": (override(config, {"model.family": "naive"}), fit, 1),
        "logistic regression": (config, fit_logistic_regression, 1),
        "smallest network": (config, fit, config.training.epochs),
    }
    score = request.score_test is not False
    with runs.closing(runs.start_run(client, "baseline", config.name, config.name, run_id=request.run_id)) as parent:
        resolve.log_choice(parent, resolved.choice)
        parent.log_params(flatten(config))
        for name, (child, fit_function, epochs) in plan.items():
            run = runs.start_run(client, "baseline", name, config.name, parent)
            with runs.closing(run), request.display(name, epochs, 0) as callback:
                outcomes[name] = run_experiment(child, data, run, [callback], score_test=score, fit=fit_function)
        for name, outcome in outcomes.items():
            for split, scored in {"val": outcome.validation, "test": outcome.test}.items():
                metric = Metric.BASELINE_ACCURACY.format(baseline=name.replace(" ", "_"), split=split)
                parent.log_metrics({metric: scored.accuracy} if scored else {})
        parent.set_tags({Tag.NOTE: baselines_note(config, outcomes)})
    return TrainResult("completed", parent.id, outcomes)


def fit_logistic_regression(
    model: keras.Model, config: ExperimentConfig, data: FashionMNIST, callbacks: Sequence[FitCallback]
) -> Fit:
    """Fit scikit-learn's logistic regression (L-BFGS) and copy its weights to the linear Keras model.

    Both models compute the same function. The fit counts as one epoch.
    """
    start = time.perf_counter()
    fitted = logistic_regression.fit(data.train)
    model.layers[-1].set_weights([fitted.weights, fitted.bias])
    seconds = time.perf_counter() - start
    plain = keras.metrics.SparseCategoricalCrossentropy(name=CROSS_ENTROPY)  # the loss may have an L2 penalty in it
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy", plain])
    metrics: dict[str, float] = {Metric.LEARNING_RATE: 0.0, Metric.EPOCH_SECONDS: seconds}
    for prefix, split in (("train", data.train), ("val", data.validation)):
        if len(split.images):
            measured = model.evaluate(split.images, split.labels, batch_size=1000, verbose=0, return_dict=True)
            metrics |= losses(measured, prefix)
    epoch = Epoch(1, metrics, len(data.validation.images))
    for callback in callbacks:
        callback.on_epoch(epoch)
    return Fit((epoch,), epoch, seconds, len(data.train.images) * fitted.iterations / seconds, False)
