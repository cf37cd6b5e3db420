"""Run one experiment: build, fit, evaluate and log it. Single runs and trials use the same function."""

from collections.abc import Callable, Sequence
from functools import partial

import keras

from fmnist_exp import models
from fmnist_exp.backend import inference, layers, seeds, setup
from fmnist_exp.config.fields import flatten
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.evaluation.metrics import Evaluation, evaluate
from fmnist_exp.experiment import artifacts, checkpoints, conditions
from fmnist_exp.experiment.outcome import Outcome
from fmnist_exp.export import packaging
from fmnist_exp.models import ensemble, transfer, tta
from fmnist_exp.registry import deliveries, lineage, private_copy  # noqa: F401 — it delivers models
from fmnist_exp.tracking import models as logged_models
from fmnist_exp.tracking import scorings, system_metrics
from fmnist_exp.tracking.names import Metric, Tag
from fmnist_exp.tracking.run import Run
from fmnist_exp.training import fit as fitting
from fmnist_exp.training.events import FitCallback

# the model, the experiment, the images and the callbacks; by the name `start`, the state from which a run is resumed
FitFunction = Callable[..., fitting.Fit]

EXAMPLES = 64  # images, from the validation set if there is one, on which the Keras model and its export are compared


def run_experiment(
    config: ExperimentConfig,
    data: FashionMNIST,
    run: Run,
    callbacks: Sequence[FitCallback] = (),
    *,
    score_test: bool,
    fit: FitFunction = fitting.fit,
) -> Outcome:
    """Train the network that a resolved `config` describes, and log everything about it to `run`, which stays open.

    A run that was reopened continues from its newest state. The test set is scored with `score_test`, which is for
    finished recipes, never for trials. `fit` can be another function, for models that are not fitted by gradient
    descent. Raises WorkError if the fit fails, for example because the loss diverges.
    """
    with system_metrics.monitoring(run):
        seeds.prepare(config.seed, config.training.precision)
        state = checkpoints.begin(run, config, data)
        run.set_tags({Tag.SCORE_TEST: str(score_test).lower()})
        trained = _build(config, run)
        # the log comes last: an execution of a trial that is no longer wanted learns it before it logs an epoch
        callbacks = [*callbacks, *checkpoints.callbacks(run, config, partial(_to_log, config=config))]
        resumed = {"start": state} if state else {}
        fitted = fit(trained, config, data, callbacks, **resumed)

        setup.set_precision("float32")
        network = _to_log(trained, config)
        model = tta.with_tta(network, config.model)
        validation = [data.validation] if len(data.validation.images) else []
        scored = [_score(model, split) for split in [*validation, *([data.test] if score_test else [])]]
        with run.artifacts() as folder:
            artifacts.write_training(folder, network, fitted, data, config)
            artifacts.write_evaluations(folder, scored)

        found = {part.split.name: part.evaluation for part in scored}
        model_id = _log_model(run, model, config, data)
        outcome = Outcome(run.id, model_id, model.count_params(), fitted, found.get("validation"), found.get("test"))
        _log_result(run, outcome, data)
        digest = conditions.weights_digest(network.get_weights())
        run.set_tags({Tag.NOTE: outcome.note(config, run.kind), Tag.WEIGHTS_DIGEST: digest})
        checkpoints.finish(run, callbacks)
        return outcome


def score_winner(run: Run, parent: Run, model_id: str, data: FashionMNIST) -> tuple[float, str]:
    """Return the test accuracy of the model that a search registers, and the record of its scoring.

    The numbers are logged to both runs, linked with the model, and the figures to `parent`. A model that an earlier
    session of the search has scored is not scored again.
    """
    if known := run.logged_metrics("test_"):
        parent.log_metrics(known)
        scored = run.tag(Tag.TEST_SCORED)
        parent.set_tags({Tag.TEST_SCORED: scored})
        return known[Metric.TEST_ACCURACY], scored
    with private_copy.opened(run.client, model_id) as copy:
        model = copy.keras()
    found, scored = _score(model, data.test), scorings.entry(parent)
    with parent.artifacts() as folder:
        artifacts.write_evaluations(folder, [found])
    for each in (run, parent):
        _log_test(each, found.evaluation, model_id, data, scored)
    return found.evaluation.accuracy, scored


def _build(config: ExperimentConfig, run: Run) -> keras.Model:
    """Return the network to fit: with fresh weights, with those of another model, or an ensemble of other models."""
    if config.model.members:
        return ensemble.average([_load(run, uri) for uri in config.model.members])
    model = layers.accelerate(models.build(config.model))
    if config.model.warm_start:
        copied = transfer.copy_weights(model, _load(run, config.model.warm_start), config.model.warm_start)
        run.set_tags({Tag.WARM_LAYERS: copied})
    transfer.freeze(model, config.model.frozen)
    return model


def _load(run: Run, uri: str) -> keras.Model:
    return lineage.find(run.client, uri).load_keras()


def _to_log(model: keras.Model, config: ExperimentConfig) -> keras.Model:
    """Return a copy with the same weights, without an optimizer, of stock layers that compute in float32."""
    if config.model.members:  # it consists of logged models
        return model
    with setup.precision_of("float32"):
        plain = models.build(config.model)
    plain.set_weights(model.get_weights())
    return plain


def _score(model: keras.Model, split: Split) -> artifacts.ScoredSplit:
    probabilities = inference.predict(model, split.images)
    return artifacts.ScoredSplit(split, probabilities, evaluate(probabilities, split.labels, split.name))


def _log_model(run: Run, model: keras.Model, config: ExperimentConfig, data: FashionMNIST) -> str:
    examples = (data.validation if len(data.validation.images) else data.train).images[:EXAMPLES]
    fields = {name: value for name, value in flatten(config).items() if not name.startswith("search.")}
    return logged_models.log(run, partial(packaging.save, model=model, examples=examples), fields)


def _log_result(run: Run, outcome: Outcome, data: FashionMNIST) -> None:
    """Log the result at step 0: metrics with a single value, which the UI draws as bars."""
    fitted, validation = outcome.fit, outcome.validation
    summary: dict[str, float] = {Metric.BEST_EPOCH: fitted.best.number, Metric.FIT_SECONDS: fitted.seconds}
    summary |= {Metric.IMAGES_PER_SECOND: fitted.images_per_second, Metric.PARAMETERS: outcome.parameters}
    if validation:  # of the logged network: the fit measured its own precision, without averaging
        summary |= {Metric.BEST_VAL_ACCURACY: validation.accuracy, Metric.BEST_VAL_LOSS: validation.loss}
    run.log_metrics(summary, 0, outcome.model_id, data.validation if validation else None)
    if outcome.test:
        _log_test(run, outcome.test, outcome.model_id, data, scorings.entry(run))


def _log_test(run: Run, test: Evaluation, model_id: str, data: FashionMNIST, scored: str) -> None:
    run.log_inputs(data, {"test": data.test})
    run.log_metrics(test.metrics(), 0, model_id, data.test)
    run.set_tags({Tag.TEST_SCORED: scored})
