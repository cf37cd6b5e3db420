"""Small networks are fitted to a few hundred real images: fits learn, repeat exactly, stop early and fail clearly."""

import hashlib
import math
import subprocess
import sys
import typing

import numpy as np
import pytest
from support.experiments import Collector, configure, fit

from fmnist_exp.backend import inference
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import WorkError
from fmnist_exp.evaluation import metrics as scoring
from fmnist_exp.training.fit import Fit

STEPS = 12  # 600 images, 50 a step
TIMES = ("epoch_seconds",)


def numbers(result: Fit) -> list[dict[str, float]]:
    """Return all metrics except times."""
    return [{k: v for k, v in epoch.metrics.items() if k not in TIMES} for epoch in result.epochs]


def fingerprint(model: typing.Any) -> str:
    return hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights())).hexdigest()


# learning


def check_learned(small: FashionMNIST, model: typing.Any, result: Fit) -> scoring.Evaluation:
    """Assert that the fit is better than chance, and that the model has the accuracy of the best epoch."""
    assert [epoch.number for epoch in result.epochs] == [1, 2]
    assert result.epochs[1].metrics["train_loss"] < result.epochs[0].metrics["train_loss"]
    assert result.best.metrics["val_accuracy"] > 0.35
    answers = inference.predict(model, small.validation.images)
    assert answers.dtype == np.float32
    found = scoring.evaluate(answers, small.validation.labels, "validation")
    # bfloat16 may change one or two predictions
    assert found.accuracy == pytest.approx(result.best.metrics["val_accuracy"], abs=0.011)
    return found


def test_learns_and_measures_what_it_did(small, plain):
    model, result, collector = plain
    found = check_learned(small, model, result)
    assert result.best.metrics["val_loss"] == pytest.approx(found.loss, rel=1e-4)
    assert not result.stopped_by_callback
    assert list(collector.epochs) == list(result.epochs)
    assert list(result.best.metrics) == [
        *("train_loss", "train_accuracy", "val_loss", "val_accuracy", "learning_rate", "epoch_seconds")
    ]
    seconds = [epoch.metrics["epoch_seconds"] for epoch in result.epochs]
    assert 0 < sum(seconds) <= result.seconds
    assert result.images_per_second > 2 * 600 / sum(seconds)  # the denominator includes validation


@pytest.mark.parametrize(
    "changes",
    [
        {"model__family": "cnn", "model__widths": [4, 8], "training__learning_rate": 1e-2},
        {"model__batch_norm": True, "model__dropout": 0.1, "augmentation__horizontal_flip": True},
        {"training__precision": "bfloat16"},
    ],
    ids=["cnn", "regularised and augmented", "bfloat16"],
)
def test_learns_in_other_ways(small, changes):
    model, result = fit(configure(**changes), small)
    check_learned(small, model, result)
    if "training__precision" in changes:
        assert model.layers[-2].compute_dtype == "bfloat16"
        assert {weight.dtype for weight in model.weights} == {"float32"}


def test_one_hot_labels_change_no_number(small, plain):
    _, one_hot = fit(configure(training__labels="one_hot"), small)
    for first, second in zip(numbers(plain[1]), numbers(one_hot), strict=True):
        assert first == pytest.approx(second, rel=1e-3, abs=1e-6)


REGULARISED = {
    "smoothing": {"training__labels": "one_hot", "training__label_smoothing": 0.4},
    "penalty": {"model__l2": 0.1},
    "both": {"training__labels": "one_hot", "training__label_smoothing": 0.4, "model__l2": 0.1},
}


@pytest.mark.parametrize("changes", REGULARISED.values(), ids=REGULARISED)
def test_f12_the_losses_are_cross_entropies_whatever_is_minimised(small, changes):
    model, result = fit(configure(**changes, training__monitor="val_loss"), small)
    for prefix, split in (("train", small.train), ("val", small.validation)):
        answers = inference.predict(model, split.images)
        loss = scoring.evaluate(answers, split.labels, split.name).loss
        if prefix == "val":
            assert loss == pytest.approx(result.best.metrics["val_loss"], rel=1e-4)
        else:  # it is the mean over the epoch, while the network learns; the penalty alone is above 3
            assert result.best.metrics["train_loss"] == pytest.approx(loss, rel=0.6)


def test_the_naive_guess_is_measured_without_a_fit(small):
    collector = Collector()
    _, result = fit(configure(model__family="naive", training__epochs=5), small, [collector])
    assert len(result.epochs) == 1
    assert collector.epochs == [result.best]
    assert result.best.metrics["val_accuracy"] == pytest.approx(0.1)
    assert result.best.metrics["train_loss"] == pytest.approx(math.log(10), rel=1e-4)
    assert result.best.metrics["learning_rate"] == 0


# the same seed, the same numbers

BUSY = {  # everything that draws random numbers
    "model__batch_norm": True,
    "model__dropout": 0.3,
    "augmentation__horizontal_flip": True,
    "augmentation__shift": 2,
    "augmentation__erasing": 0.5,
}


def test_same_seed_same_numbers_to_the_last_bit(small):
    config = configure(**BUSY)
    (model, first), (again, second) = fit(config, small), fit(config, small)
    assert numbers(first) == numbers(second)
    assert fingerprint(model) == fingerprint(again)
    other_model, other = fit(configure(**BUSY, seed=1), small)
    assert numbers(other) != numbers(first)
    assert fingerprint(other_model) != fingerprint(model)


def test_same_seed_same_numbers_in_another_process(small, tmp_path):
    """The network is a CNN, because TensorFlow orders the sums of convolutions arbitrarily by default."""
    config = configure(**BUSY, model__family="cnn", model__widths=[3, 4], training__epochs=1)
    np.savez(tmp_path / "small.npz", *[a for s in (small.train, small.validation) for a in (s.images, s.labels)])
    (tmp_path / "experiment.yaml").write_text(config.to_yaml())
    code = """
import hashlib, sys
import numpy as np
from fmnist_exp import models
from fmnist_exp.backend import seeds
from fmnist_exp.config import files
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.training import fit as fitting
images, labels, val_images, val_labels = np.load("small.npz").values()
config = files.load("experiment.yaml")
seeds.prepare(config.seed, "float32")
model = models.build(config.model)
splits = Split("train", images, labels), Split("validation", val_images, val_labels)
result = fitting.fit(model, config, FashionMNIST(*splits, splits[1], ""))
print(repr(result.best.metrics["train_loss"]))
print(hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights())).hexdigest())
"""
    other = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    model, result = fit(config, small)
    said, _ = other.communicate(timeout=120)
    assert other.returncode == 0
    assert said.split() == [repr(result.best.metrics["train_loss"]), fingerprint(model)]


# the best epoch


@pytest.mark.parametrize(("monitor", "sign"), [("val_accuracy", 1), ("val_loss", -1)])
def test_stops_early_and_keeps_the_best_epochs_weights(small, monitor, sign):
    config = configure(
        training__epochs=30,
        training__patience=3,
        training__monitor=monitor,
        training__learning_rate=0.03,
        model__widths=[64],
    )
    model, result = fit(config, small)
    values = [sign * epoch.metrics[monitor] for epoch in result.epochs]
    assert len(values) < 30
    assert result.best.number == 1 + values.index(max(values)) == len(values) - 3
    answers = inference.predict(model, small.validation.images)
    found = scoring.evaluate(answers, small.validation.labels, "validation")
    assert found.accuracy == pytest.approx(result.best.metrics["val_accuracy"])
    assert found.loss == pytest.approx(result.best.metrics["val_loss"], rel=1e-4)
    assert found.loss != pytest.approx(result.epochs[-1].metrics["val_loss"], rel=1e-4)


# callbacks


def test_callbacks_receive_the_last_of_the_steps_that_run_together(small):
    collector = Collector()
    fit(configure(training__steps_per_execution=5), small, [collector])
    assert collector.steps == [(epoch, step, STEPS) for epoch in (1, 2) for step in (5, 10, STEPS)]


def test_a_callback_can_stop_the_fit_and_the_others_receive_the_epoch(small):
    stopper, other = Collector(last=2), Collector()
    model, result = fit(configure(training__epochs=9), small, [stopper, other])
    assert result.stopped_by_callback
    assert len(result.epochs) == len(stopper.epochs) == len(other.epochs) == 2
    answers = inference.predict(model, small.validation.images)
    found = scoring.evaluate(answers, small.validation.labels, "validation")
    assert found.accuracy == pytest.approx(result.best.metrics["val_accuracy"])


# failures


def test_a_loss_that_explodes_ends_the_fit_with_the_reason(small):
    config = configure(training__optimizer="sgd", training__learning_rate=10, model__l2=1)
    with pytest.raises(WorkError, match=r"^the training loss became (nan|inf) in epoch \d; lower training"):
        fit(config, small)
