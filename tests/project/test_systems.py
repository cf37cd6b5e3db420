"""The published systems: their files say the networks that SYSTEMS describes, layer by layer."""

import pytest

from fmnist_exp import models
from fmnist_exp.backend import seeds
from fmnist_exp.config import files

# layers as a notebook would write them; the parameters are those that the projects state
CNN_BLOCK = ["Conv2D 64 3×3", "BatchNormalization", "Conv2D 64 3×3", "MaxPooling2D", "Dropout 0.25"]
LAYERS = {
    "naive": (0, None),
    "l2_mlp": (235_146, ["Dense 256", "Dropout 0.3", "Dense 128", "Dropout 0.3", "Dense 10"]),
    "funnel_mlp": (567_434, ["Dense 512", "Dropout 0.3", "Dense 256", "Dropout 0.3", "Dense 128", "Dense 10"]),
    "simple_cnn": (
        121_930,
        [
            *("Conv2D 32 3×3", "MaxPooling2D", "Conv2D 64 3×3", "MaxPooling2D"),
            *("Dense 64", "Dropout 0.5", "Dense 10"),
        ],
    ),
    "augmented_cnn": (
        871_402,
        [
            *("Conv2D 32 3×3", "BatchNormalization", "Conv2D 32 3×3", "BatchNormalization", "MaxPooling2D"),
            *("Dropout 0.25", "Conv2D 64 3×3", "BatchNormalization", "Conv2D 64 3×3", "BatchNormalization"),
            *("MaxPooling2D", "Dropout 0.25", "Dense 256", "Dropout 0.5", "Dense 10"),
        ],
    ),
    "deep_cnn": (
        1_869_258,
        [
            *CNN_BLOCK,
            *("Conv2D 128 3×3", "BatchNormalization", "Conv2D 128 3×3", "MaxPooling2D", "Dropout 0.35"),
            *("Dense 256", "BatchNormalization", "Dropout 0.5", "Dense 10"),
        ],
    ),
}
PLUMBING = ("InputLayer", "Input", "Rescaling", "Reshape", "Flatten", "Activation")


@pytest.fixture(autouse=True)
def prepared():
    seeds.prepare(0, "float32")


@pytest.mark.parametrize("name", LAYERS)
def test_parameters_and_order_of_layers(name):
    model = models.build(files.load(name).model)
    parameters, layers = LAYERS[name]
    assert model.count_params() == parameters
    if layers:
        rows = [description.removesuffix(" softmax") for description, _, _ in models.describe(model)]
        assert [row for row in rows if row.split()[0] not in PLUMBING] == layers


def test_every_activation_of_the_systems_stands_before_its_normalisation():
    for name in ("augmented_cnn", "deep_cnn"):
        kinds = [type(layer).__name__ for layer in models.build(files.load(name).model).layers]
        places = [place for place, kind in enumerate(kinds) if kind == "BatchNormalization"]
        assert {kinds[place - 1] for place in places} == {"Activation"}


def test_what_the_systems_are_known_for_is_in_their_files():
    l2, deep, augmented = (files.load(name) for name in ("l2_mlp", "deep_cnn", "augmented_cnn"))
    assert (l2.model.l2 > 0, l2.training.labels, l2.training.optimizer) == (True, "one_hot", "adam")
    assert deep.training.checkpoint
    transforms = augmented.augmentation
    assert transforms.copies > 0
    assert min(transforms.rotation, transforms.shear, transforms.zoom, transforms.shift) > 0
    assert transforms.horizontal_flip
    assert augmented.training.schedule == "plateau"
    assert files.load("funnel_mlp").training.monitor == "val_loss"
    assert files.load("simple_cnn").training.epochs == 5


def test_the_small_network_is_small():
    assert models.build(files.load("small_cnn").model).count_params() < 100_000
