"""The dense families, and the fields that they share with the convolutional ones."""

import typing

import numpy as np
import pytest
from support.networks import answers, cnn, kinds, mlp, of_kind

from fmnist_exp import models
from fmnist_exp.config.schema import ModelConfig

ACTIVATIONS = typing.get_args(ModelConfig.model_fields["activation"].annotation)


def small_mlp(**fields):
    return mlp(8, 6, **fields)


def test_naive_gives_every_class_a_tenth(small):
    model = models.build(ModelConfig(family="naive"))
    assert np.allclose(answers(model, small.test.images), 0.1)
    assert model.count_params() == 0


def test_parameters_of_known_networks():
    assert mlp(512, 256, 128, dropout=0.3).count_params() == 567_434
    assert models.build(ModelConfig(family="linear")).count_params() == 784 * 10 + 10


def test_pixels_are_put_on_the_scale_of_the_training_set(data):
    rescaling = models.build(ModelConfig(family="linear")).layers[0]
    rescaled = np.asarray(rescaling(data.train.images.astype("float32")))
    assert rescaled.mean() == pytest.approx(0, abs=0.01)
    assert rescaled.std() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("build", [small_mlp, cnn])
def test_dropout(build):
    assert "Dropout" not in kinds(build())
    for dropout, rates in ((0.2, [0.2, 0.2]), ((0.1, 0.3), [0.1, 0.3]), ((0.0, 0.3), [0.3])):
        assert [layer.rate for layer in of_kind(build(dropout=dropout), "Dropout")] == rates


@pytest.mark.parametrize("build", [small_mlp, cnn])
def test_l2_is_on_every_kernel(build):
    assert not build().losses
    model = build(l2=0.5)
    kernels = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
    assert len(model.losses) == len(kernels)
    expected = 0.5 * sum(float((np.asarray(kernel) ** 2).sum()) for kernel in kernels)
    assert sum(map(float, model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("build", [small_mlp, cnn])
def test_batch_norm_stands_before_each_activation_and_takes_the_bias(build):
    model = build(batch_norm=True)
    positions = [i for i, kind in enumerate(kinds(model)) if kind == "Activation"]
    assert len(positions) == kinds(build()).count("Activation")
    assert {kinds(model)[position - 1] for position in positions} == {"BatchNormalization"}
    biases = [layer.use_bias for layer in model.layers if hasattr(layer, "kernel")]
    assert biases == [False] * (len(biases) - 1) + [True]


@pytest.mark.parametrize("build", [small_mlp, cnn])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(build, name):
    assert {layer.activation.__name__ for layer in of_kind(build(activation=name), "Activation")} == {name}
