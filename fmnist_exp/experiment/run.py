"""One experiment, whole: build, fit, evaluate, log. The same function runs a single experiment and a trial."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fmnist_exp import models
from fmnist_exp.backend import inference, layers, seeds, setup
from fmnist_exp.config.fields import flatten
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.evaluation import metrics as scoring
from fmnist_exp.experiment import artifacts, checkpoints
from fmnist_exp.experiment.artifacts import Pictured
from fmnist_exp.export import packaging
from fmnist_exp.models import ensemble, transfer, tta
from fmnist_exp.registry import lineage
from fmnist_exp.tracking import models as logged_models
from fmnist_exp.tracking import run as runs
from fmnist_exp.training import fit as fitting
from fmnist_exp.training.events import FitCallback
from fmnist_exp.training.fit import Fit

if TYPE_CHECKING:
    import keras

    from fmnist_exp.evaluation.metrics import Evaluation
    from fmnist_exp.tracking.run import Run


FitFunction = Callable[["keras.Model", ExperimentConfig, FashionMNIST, Sequence[FitCallback]], Fit]

EXAMPLES = 64  # images, held-out ones where there are any, on which the two faces of a logged model are compared


@dataclass(frozen=True)
class Outcome:
    """What a run came to. `validation` is None without images held out, `test` unless the run was scored on it."""

    run_id: str
    model_id: str
    parameters: int
    fit: Fit
    validation: Evaluation | None
    test: Evaluation | None

    def tags(self, run: Run, data: FashionMNIST) -> dict[str, object]:
        """What a version made of this run says of itself."""
        test = {"test_accuracy": self.test.accuracy} if self.test else {}
        validation = {"val_accuracy": self.validation.accuracy} if self.validation else {}
        return {**validation, **test, "data_digest": data.train.digest, "git_commit": run.git_commit}


def run_experiment(
    config: ExperimentConfig,
    data: FashionMNIST,
    run: Run,
    callbacks: Sequence[FitCallback] = (),
    *,
    score_test: bool,
    fit: FitFunction = fitting.fit,
) -> Outcome:
    """Train what `config` says and log everything about it to `run`, which stays open.

    Args:
        config: the experiment.
        data: from `data.load` with the same data section and seed.
        run: where to log; the caller closes it.
        callbacks: told of every step and epoch.
        score_test: score the test set too; for a final run, never for a trial.
        fit: another way to fit, for models that need no gradient.

    Raises:
        WorkError: the fit broke down, as on a loss that is not a number.
    """
    seeds.prepare(config.seed, config.training.precision)
    runs.log_start(run, config, data)
    model = _build(config, run)
    keeping = [checkpoints.CheckpointLog(run, partial(_to_log, config=config))] if config.training.checkpoint else []
    fitted = fit(model, config, data, [checkpoints.EpochLog(run), *keeping, *callbacks])
    setup.set_precision("float32")
    network = _to_log(model, config)
    model = tta.with_tta(network, config.model)
    scored = [_score(model, split) for split in (data.validation,) if len(split.images)]
    scored += [_score(model, data.test)] if score_test else []
    found = {pictured.split.name: pictured.evaluation for pictured in scored}
    with run.artifacts() as folder:
        artifacts.write_model(folder, network, config)
        artifacts.write_fit(folder, fitted, data, config)
        artifacts.write_evaluations(folder, scored)
    model_id = _log_model(run, model, config, data)
    outcome = Outcome(run.id, model_id, model.count_params(), fitted, found.get("validation"), found.get("test"))
    _log_numbers(run, outcome, data, averaged=model is not network)
    if config.training.checkpoint:
        checkpoints.discard(run)
    return outcome


def _log_model(run: Run, model: keras.Model, config: ExperimentConfig, data: FashionMNIST) -> str:
    examples = (data.validation if len(data.validation.images) else data.train).images[:EXAMPLES]
    write = partial(packaging.save, model=model, examples=examples)
    return logged_models.log(run, write, {k: v for k, v in flatten(config).items() if not k.startswith("search.")})


def _log_numbers(run: Run, outcome: Outcome, data: FashionMNIST, *, averaged: bool) -> None:
    """Log what the run came to, at step 0: one value, which the UI draws as a bar."""
    fitted, validation = outcome.fit, outcome.validation
    summary = {f"best_{name}": value for name, value in fitted.best.metrics.items() if name.startswith("val_")}
    summary |= {"best_epoch": fitted.best.number, "fit_seconds": fitted.seconds}
    summary |= {"images_per_second": fitted.images_per_second, "parameters": outcome.parameters}
    if averaged and validation:  # the epochs measured it without the averaging
        summary["averaged_val_accuracy"] = validation.accuracy
    run.log_metrics(summary, 0, outcome.model_id, data.validation if validation else None)
    if outcome.test:
        _log_test(run, outcome.test, outcome.model_id, data)


def score_winner(run: Run, parent: Run, model_id: str, data: FashionMNIST) -> float:
    """The test accuracy of a trial's logged model: figures on `parent`, numbers on both runs, linked with the model.

    A model that was scored before, as when its study goes on, is not scored again.
    """
    known = run.logged_metrics("test_")
    if known:
        parent.log_metrics(known)
        return known["test_accuracy"]
    pictured = _score(logged_models.load_keras(f"models:/{model_id}"), data.test)
    with parent.artifacts() as folder:
        artifacts.write_evaluations(folder, [pictured])
    for scored in (run, parent):
        _log_test(scored, pictured.evaluation, model_id, data)
    return pictured.evaluation.accuracy


def _score(model: keras.Model, split: Split) -> Pictured:
    probabilities = inference.predict(model, split.images)
    return Pictured(split, probabilities, scoring.evaluate(probabilities, split.labels, split.name))


def _log_test(run: Run, test: Evaluation, model_id: str, data: FashionMNIST) -> None:
    run.log_inputs(data, {"test": data.test})
    run.log_metrics(test.metrics(), 0, model_id, data.test)


def _build(config: ExperimentConfig, run: Run) -> keras.Model:
    """The network to fit: fresh, begun from another one's weights, or the ensemble of others."""
    if config.model.members:
        return ensemble.average([_logged(run, uri) for uri in config.model.members])
    model = layers.accelerate(models.build(config.model))
    if config.model.warm_start:
        taken = transfer.copy_weights(model, _logged(run, config.model.warm_start), config.model.warm_start)
        run.set_tags({"fmnist.warm_layers": str(taken)})
    transfer.freeze(model, config.model.frozen)
    return model


def _logged(run: Run, uri: str) -> keras.Model:
    return lineage.find(run.client, uri).load_keras()


def _to_log(model: keras.Model, config: ExperimentConfig) -> keras.Model:
    """The same weights, without an optimizer's, in stock layers that compute in float32."""
    if config.model.members:
        return model
    with setup.precision_of("float32"):
        plain = models.build(config.model)
    plain.set_weights(model.get_weights())
    return plain
