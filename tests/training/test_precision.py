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


def test_the_faster_one_is_chosen(small):
    choice = precision.choose(CONFIG, small)
    assert choice.images_per_second.keys() == {"float32", "bfloat16"}
    assert all(0 < speed < math.inf for speed in choice.images_per_second.values())
    assert choice.images_per_second[choice.precision] == max(choice.images_per_second.values())
    assert choice.metrics().keys() == {"float32_images_per_second", "bfloat16_images_per_second", "precision_seconds"}
    assert 0 < choice.seconds == choice.metrics()["precision_seconds"]


def test_a_batch_of_all_images_can_be_measured(small):
    """Four batches of 600 of 600 images: they are shown again."""
    whole = files.override(CONFIG, {"training.batch_size": 600, "training.steps_per_execution": 3})
    assert all(speed > 0 for speed in precision.choose(whole, small).images_per_second.values())


def test_what_it_costs_has_a_limit(data, small, monkeypatch):
    """Neither large batches nor copies of the images make it long: two calls of the real fit, looked at."""
    fits, fit = [], fitting.fit

    def watched(model, config, shown, callbacks):
        fits.append((config, len(shown.train.images)))
        return fit(model, config, shown, callbacks)

    monkeypatch.setattr(fitting, "fit", watched)
    large = {"training.batch_size": 50_000, "training.steps_per_execution": 32, "augmentation.copies": 3}
    precision.choose(files.override(CONFIG, large), data)
    few = {"training.batch_size": 400, "training.steps_per_execution": 32, "augmentation.copies": 1}
    precision.choose(files.override(CONFIG, few), small)
    assert [images for _, images in fits] == [4 * 8192] * 2 + [4 * 3 * 400] * 2  # an epoch of `few` has three steps
    assert not any(config.augmentation.copies or config.augmentation.transforms() for config, _ in fits)


def test_what_is_not_trained_needs_no_choice(small):
    naive = files.override(CONFIG, {"model.family": "naive", "model.batch_norm": False})
    choice = precision.choose(naive, small)
    assert (choice.precision, choice.images_per_second) == ("float32", {})


def test_another_precision_is_refused():
    with pytest.raises(RequestError, match=r"^training\.precision='float16': must be one of auto, float32, bfloat16$"):
        files.override(ExperimentConfig(), {"training.precision": "float16"})
