"""Weight averaging, against an average that is kept by hand."""

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
}


class ByHand(FitCallback):
    """Averages the weights after each step, and looks at the model when an epoch is over."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.average: list[np.ndarray] = []
        self.trained: list[np.ndarray] = []
        self.seen: list[list[np.ndarray]] = []
        self.expected: list[list[np.ndarray]] = []

    def on_step(self, epoch: int, step: int, steps: int) -> None:
        self.trained = self.weights()
        pairs = zip(self.average or self.trained, self.trained, strict=True)  # begins as the first step's weights
        self.average = [MOMENTUM * average + (1 - MOMENTUM) * weight for average, weight in pairs]

    def on_epoch(self, epoch: Epoch) -> bool:
        self.seen.append(self.weights())
        self.expected.append(self.average)
        return False

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        assert same(self.weights(), self.seen[-1])  # what a checkpoint saves
        if "ema" in (memories := checkpoint.state().callbacks):
            assert same(list(memories["ema"].arrays), self.trained)

    def weights(self) -> list[np.ndarray]:
        return [weight.numpy() for weight in self.model.trainable_variables]


def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def fit(data: Any, **changes: Any) -> tuple[ByHand, Fit]:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    config = files.override(ExperimentConfig(), TINY | named)
    seeds.prepare(config.seed, config.training.precision)
    model = models.build(config.model)
    by_hand = ByHand(model)
    return by_hand, fitting.fit(model, config, data, [by_hand])


@pytest.fixture(scope="module")
def averaged(small) -> tuple[ByHand, Fit]:
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
def test_the_averages_are_judged_and_kept(small, averaged, changes, precision):
    by_hand, result = fit(small, **changes, training__precision=precision) if changes else averaged
    for seen, expected in zip(by_hand.seen, by_hand.expected, strict=True):
        for weight, average in zip(seen, expected, strict=True):
            assert weight == pytest.approx(average, rel=1e-4, abs=1e-6)
    assert not same(by_hand.seen[-1], by_hand.trained)
    assert same(by_hand.weights(), by_hand.seen[result.best.number - 1])  # what the fit leaves behind
    found = scoring.evaluate(
        inference.predict(by_hand.model, small.validation.images), small.validation.labels, "validation"
    )
    assert found.loss == pytest.approx(result.best.metrics["val_loss"], rel=1e-4 if precision == "float32" else 0.02)


def test_averaging_changes_no_step(small, averaged):
    _, plain = fit(small, training__ema=0)
    for one, other in zip(averaged[1].epochs, plain.epochs, strict=True):
        assert one.metrics["train_loss"] == other.metrics["train_loss"]
        assert one.metrics["val_loss"] != other.metrics["val_loss"]


def test_steps_that_run_together_are_averaged_one_by_one(small, averaged):
    together, _ = fit(small, training__epochs=1, training__steps_per_execution=5)
    for weight, expected in zip(together.weights(), averaged[0].seen[0], strict=True):
        assert weight == pytest.approx(expected, rel=1e-4, abs=1e-6)
