"""Every shipped experiment is built and takes a training step on real images."""

import math

import numpy as np
import pytest

from fmnist_exp import models
from fmnist_exp.backend import layers, seeds
from fmnist_exp.config import files
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.experiment import resolve
from fmnist_exp.models import tta
from fmnist_exp.training import fit as fitting

SHIPPED = sorted(path.stem for path in files.EXPERIMENTS.glob("*.yaml"))
BATCH_SIZE = 10  # images
ONE_STEP = {
    "training.epochs": 1,
    "training.batch_size": BATCH_SIZE,
    "training.steps_per_execution": 1,
    "training.warmup": 0,  # the first step has the peak of the learning rate
    "training.checkpoint": False,
}
PARAMETERS = {  # as the projects state them that published the network, or its file
    "augmented_cnn": 871_402,
    "baseline": 7_850,
    "deep_cnn": 1_869_258,
    "funnel_mlp": 567_434,
    "l2_mlp": 235_146,
    "simple_cnn": 121_930,
    "small_cnn": 97_474,
}


@pytest.fixture
def batch(small) -> FashionMNIST:
    """One batch of real images for training and none for validation."""
    train = Split("train", small.train.images[:BATCH_SIZE], small.train.labels[:BATCH_SIZE])
    validation = Split("validation", small.validation.images[:0], small.validation.labels[:0])
    return FashionMNIST(train, validation, small.test, small.source)


@pytest.mark.parametrize("name", SHIPPED)
def test_it_is_built_and_takes_a_step(name, batch):
    config = files.override(files.load(name), ONE_STEP)
    config, _ = resolve.choose_precision(config, batch)
    seeds.prepare(config.seed, config.training.precision)
    model = layers.accelerate(models.build(config.model))
    before = model.get_weights()
    fit = fitting.fit(model, config, batch)
    assert math.isfinite(fit.epochs[0].metrics["train_loss"])
    changed = [not np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True)]
    assert all(changed)
    assert tta.with_tta(model, config.model).output_shape == (None, 10)
    assert model.count_params() == PARAMETERS.get(name, model.count_params())
