"""The averages of the weights equal those that a callback computes step by step in NumPy."""

from typing import Any

import numpy as np
import pytest

from fmnist_exp import models
from fmnist_exp.backend import inference, seeds
from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.evaluation import metrics as scoring
from fmnist_exp.training import fit as fitting
from fmnist_exp.training.events import Checkpoint, Epoch, FitCallback
from fmnist_exp.training.fit import Fit

MOMENTUM = 0.8
TINY = {
    "model.family": "mlp",
    "model.widths": [16],
    "model.batch_norm": True,
    "training.epochs": 2,
    "training.batch_size": 50,  # 12 steps an epoch
    "training.learning_rate": 3e-3,
    "training.steps_per_execution": 1,
    "training.ema": MOMENTUM,
    "training.precision": "float32",
}


class Reference(FitCallback):
    """Average the weights after each step, and record the model's weights at the end of each epoch."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.average: list[np.ndarray] = []
        self.trained: list[np.ndarray] = []
        self.validated: list[list[np.ndarray]] = []
        self.expected: list[list[np.ndarray]] = []

    def on_step(self, epoch: int, step: int, steps: int) -> None:
        self.trained = self.weights()
        pairs = zip(self.average or self.trained, self.trained, strict=True)  # starts with the first step's weights
        self.average = [MOMENTUM * average + (1 - MOMENTUM) * weight for average, weight in pairs]

    def on_epoch(self, epoch: Epoch) -> bool:
        self.validated.append(self.weights())
        self.expected.append(self.average)
        return False

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        assert same(self.weights(), self.validated[-1])  # a checkpoint saves the averages
        if "ema" in (memories := checkpoint.state().callbacks):
            assert same(list(memories["ema"].arrays), self.trained)

    def weights(self) -> list[np.ndarray]:
        return [weight.numpy() for weight in self.model.trainable_variables]


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def fit(data: Any, **changes: Any) -> tuple[Reference, Fit]:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    config = files.override(ExperimentConfig(), TINY | named)
    seeds.prepare(config.seed, config.training.precision)
    model = models.build(config.model)
    reference = Reference(model)
    return reference, fitting.fit(model, config, data, [reference])


@pytest.fixture(scope="module")
def averaged(small) -> tuple[Reference, Fit]:
    return fit(small)


@pytest.mark.parametrize(
    ("changes", "precision"),
    [
        ({}, "float32"),
        ({"training__optimizer": "sgd"}, "float32"),
        ({"training__optimizer": "adamw", "training__weight_decay": 0.1}, "bfloat16"),
    ],
    ids=["adam", "sgd", "adamw in bfloat16"],
)
def test_averages_are_validated_and_kept(small, averaged, changes, precision):
    reference, result = fit(small, **changes, training__precision=precision) if changes else averaged
    for validated, expected in zip(reference.validated, reference.expected, strict=True):
        for weight, average in zip(validated, expected, strict=True):
            assert weight == pytest.approx(average, rel=1e-4, abs=1e-6)
    assert not same(reference.validated[-1], reference.trained)
    assert same(reference.weights(), reference.validated[result.best.number - 1])
    found = scoring.evaluate(
        inference.predict(reference.model, small.validation.images), small.validation.labels, "validation"
    )
    assert found.loss == pytest.approx(result.best.metrics["val_loss"], rel=1e-4 if precision == "float32" else 0.02)


def test_averaging_does_not_change_training(small, averaged):
    _, plain = fit(small, training__ema=0)
    for one, other in zip(averaged[1].epochs, plain.epochs, strict=True):
        assert one.metrics["train_loss"] == other.metrics["train_loss"]
        assert one.metrics["val_loss"] != other.metrics["val_loss"]


def test_every_step_is_averaged_if_several_run_in_one_call(small, averaged):
    together, _ = fit(small, training__epochs=1, training__steps_per_execution=5)
    for weight, expected in zip(together.weights(), averaged[0].validated[0], strict=True):
        assert weight == pytest.approx(expected, rel=1e-4, abs=1e-6)
