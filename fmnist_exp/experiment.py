"""One experiment, whole: build, fit, evaluate, log. The same function runs a single experiment and a trial."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fmnist_exp import checkpoints, connection, evaluation, figures, models, runtime, tracking, training
from fmnist_exp.config import ExperimentConfig, flatten
from fmnist_exp.data import FashionMNIST, Split
from fmnist_exp.training import Epoch, Fit, Listener

if TYPE_CHECKING:
    import keras

    from fmnist_exp.evaluation import Evaluation
    from fmnist_exp.tracking import Run

FitFunction = Callable[["keras.Model", ExperimentConfig, FashionMNIST, Sequence[Listener]], Fit]

EXAMPLES = 64  # validation images on which the two faces of a logged model are compared


@dataclass(frozen=True)
class Outcome:
    """What a run came to. `test` is None unless the run was scored on the test set."""

    run_id: str
    model_id: str
    parameters: int
    fit: Fit
    validation: Evaluation
    test: Evaluation | None


def check(config: ExperimentConfig, data: FashionMNIST) -> None:
    """Raise RequestError for what the schema cannot see, before anything is written."""
    models.check(config.model)
    training.check(config.training, data)


def run_experiment(
    config: ExperimentConfig,
    data: FashionMNIST,
    run: Run,
    listeners: Sequence[Listener] = (),
    *,
    score_test: bool,
    fit: FitFunction = training.fit,
) -> Outcome:
    """Train what `config` says and log everything about it to `run`, which stays open.

    Args:
        config: the experiment.
        data: from `data.load` with the same data section and seed.
        run: where to log; the caller closes it.
        listeners: told of every step and epoch.
        score_test: score the test set too; for a final run, never for a trial.
        fit: another way to fit, for models that need no gradient.

    Raises:
        WorkError: the fit broke down, as on a loss that is not a number.
    """
    runtime.prepare(config.seed, config.training.precision)
    tracking.log_start(run, config, data)
    model = models.build(config.model)
    keeping = [checkpoints.CheckpointLog(run)] if config.training.checkpoint else []
    fitted = fit(model, config, data, [tracking.EpochLog(run), *keeping, *listeners])
    model = _in_float32(model, config)
    validation, validation_pictures = _score(model, data.validation)
    test, pictures = _score(model, data.test) if score_test else (None, validation_pictures)
    with run.artifacts() as folder:
        _write_model_description(folder, model, config)
        _write_figures(folder, fitted, data, pictures)
        _write_report(folder, [validation, *([test] if test else [])])
    examples = data.validation.images[:EXAMPLES]
    model_id = run.model(model, examples, {k: v for k, v in flatten(config).items() if not k.startswith("search.")})
    summary = {
        "best_epoch": fitted.best.number,
        "best_val_accuracy": fitted.best.metrics["val_accuracy"],
        "best_val_loss": fitted.best.metrics["val_loss"],
        "fit_seconds": fitted.seconds,
        "images_per_second": fitted.images_per_second,
        "parameters": model.count_params(),
    }
    run.metrics(summary, 0, model_id, data.validation)  # step 0: one value, which the UI draws as a bar
    if test:
        _log_test(run, test, model_id, data)
    if config.training.checkpoint:
        checkpoints.discard(run)
    return Outcome(run.id, model_id, model.count_params(), fitted, validation, test)


def score_winner(run: Run, parent: Run, model_id: str, data: FashionMNIST) -> float:
    """The test accuracy of a trial's logged model: figures on `parent`, numbers on both runs, linked with the model.

    A model that was scored before, as when its study goes on, is not scored again.
    """
    known = run.logged_metrics("test_")
    if known:
        parent.metrics(known)
        return known["test_accuracy"]
    evaluated, pictures = _score(connection.load_model(model_id), data.test)
    with parent.artifacts() as folder:
        _write_evaluation(folder, pictures)
        _write_report(folder, [evaluated])
    for scored in (run, parent):
        _log_test(scored, evaluated, model_id, data)
    return evaluated.accuracy


@dataclass(frozen=True)
class _Pictured:
    """A split with a model's answers for it: what the pictures of an evaluation need."""

    split: Split
    probabilities: Any  # (N, 10) float32
    evaluation: Evaluation


def _score(model: keras.Model, split: Split) -> tuple[Evaluation, _Pictured]:
    probabilities = evaluation.predict(model, split.images)
    evaluated = evaluation.evaluate(probabilities, split.labels, split.name)
    return evaluated, _Pictured(split, probabilities, evaluated)


def _log_test(run: Run, test: Evaluation, model_id: str, data: FashionMNIST) -> None:
    run.inputs(data, {"test": data.test})
    run.metrics(test.metrics(), 0, model_id, data.test)


def _in_float32(model: keras.Model, config: ExperimentConfig) -> keras.Model:
    """The same weights in a network that computes in float32, to be logged, exported and scored."""
    if config.training.precision == "float32":
        return model
    runtime.set_precision("float32")
    plain = models.build(config.model)
    plain.set_weights(model.get_weights())
    return plain


def _write_model_description(folder: Any, model: keras.Model, config: ExperimentConfig) -> None:
    lines: list[str] = []
    model.summary(print_fn=lines.append, line_length=100)
    (folder / "model").mkdir()
    (folder / "model" / "summary.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    title = f"{config.name}: {model.count_params():,} parameters"
    tracking.save_figure(folder, "model/diagram.png", figures.model_diagram(models.describe(model), title))


def _write_figures(folder: Any, fitted: Fit, data: FashionMNIST, pictures: _Pictured) -> None:
    epochs: Sequence[Epoch] = fitted.epochs
    tracking.save_figure(folder, "curves/accuracy.png", figures.curves(epochs, "accuracy", fitted.best))
    tracking.save_figure(folder, "curves/loss.png", figures.curves(epochs, "loss", fitted.best))
    tracking.save_figure(folder, "data/samples.png", figures.samples(data.train.images, data.train.labels))
    _write_evaluation(folder, pictures)


def _write_evaluation(folder: Any, pictures: _Pictured) -> None:
    images, labels = pictures.split.images, pictures.split.labels
    answers = np.asarray(pictures.probabilities)
    tracking.save_figure(folder, "evaluation/confusion_matrix.png", figures.confusion_matrix(pictures.evaluation))
    tracking.save_figure(folder, "evaluation/predictions.png", figures.predictions(images, labels, answers))
    tracking.save_figure(folder, "evaluation/mistakes.png", figures.mistakes(images, labels, answers))


def _write_report(folder: Any, evaluations: Sequence[Evaluation]) -> None:
    report: Mapping[str, Any] = {evaluated.split: evaluated.report() for evaluated in evaluations}
    (folder / "evaluation").mkdir(exist_ok=True)
    (folder / "evaluation" / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
