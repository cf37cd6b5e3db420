"""`precision.choose` measures both precisions on the experiment's network and returns the faster one."""

import math

import pytest

from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.errors import RequestError
from fmnist_exp.training import fit as fitting
from fmnist_exp.training import precision

CONFIG = files.override(
    ExperimentConfig(),
    {
        "name": "precision",
        "model.family": "mlp",
        "model.widths": [16],
        "model.batch_norm": True,
        "model.dropout": 0.2,
        "training.epochs": 1,
        "training.batch_size": 50,
        "training.steps_per_execution": 1,  # several make a loop, which takes TensorFlow longer to trace than to run
        "training.precision": "auto",
        "augmentation.horizontal_flip": True,
    },
)


def test_choose_returns_the_faster_precision(small):
    choice = precision.choose(CONFIG, small)
    assert choice.images_per_second.keys() == {"float32", "bfloat16"}
    assert all(0 < speed < math.inf for speed in choice.images_per_second.values())
    assert choice.images_per_second[choice.precision] == max(choice.images_per_second.values())
    assert choice.metrics().keys() == {"float32_images_per_second", "bfloat16_images_per_second", "precision_seconds"}
    assert 0 < choice.seconds == choice.metrics()["precision_seconds"]


def test_choose_repeats_images_if_there_are_too_few(small):
    """Four calls need three batches of 600 images each, but there are only 600 images."""
    whole = files.override(CONFIG, {"training.batch_size": 600, "training.steps_per_execution": 3})
    assert all(speed > 0 for speed in precision.choose(whole, small).images_per_second.values())


def test_large_batches_and_copies_do_not_prolong_the_measurement(data, small, monkeypatch):
    """The real fit runs, and a wrapper records its configuration and its number of images."""
    fits, fit = [], fitting.fit

    def recorded(model, config, subset, callbacks):
        fits.append((config, len(subset.train.images)))
        return fit(model, config, subset, callbacks)

    monkeypatch.setattr(fitting, "fit", recorded)
    large = {"training.batch_size": 50_000, "training.steps_per_execution": 32, "augmentation.copies": 3}
    precision.choose(files.override(CONFIG, large), data)
    few = {"training.batch_size": 400, "training.steps_per_execution": 32, "augmentation.copies": 1}
    precision.choose(files.override(CONFIG, few), small)
    assert [images for _, images in fits] == [4 * 8192] * 2 + [4 * 3 * 400] * 2  # an epoch of `few` has three steps
    assert not any(config.augmentation.copies or config.augmentation.transforms() for config, _ in fits)


def test_model_without_weights_gets_float32_unmeasured(small):
    naive = files.override(CONFIG, {"model.family": "naive", "model.batch_norm": False})
    choice = precision.choose(naive, small)
    assert (choice.precision, choice.images_per_second) == ("float32", {})


def test_unknown_precision_in_an_experiment_is_refused():
    with pytest.raises(RequestError, match=r"^training\.precision='float16': must be one of auto, float32, bfloat16$"):
        files.override(ExperimentConfig(), {"training.precision": "float16"})
