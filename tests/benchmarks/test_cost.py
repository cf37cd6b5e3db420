"""Tests of the counted multiply-adds against the same numbers worked out by hand."""

import keras
import pytest

from benchmarks.cost import multiply_adds, training_flop
from fmnist_exp import models
from fmnist_exp.backend import layers, seeds
from fmnist_exp.config import files
from fmnist_exp.config.schema import ModelConfig
from fmnist_exp.models import ensemble, tta


@pytest.fixture(autouse=True)
def prepared():
    seeds.prepare(0, "float32")


DEEP_CNN = [  # pixels of the output, kernel pixels, channels in and out
    *(784 * 9 * 1 * 64, 784 * 9 * 64 * 64),
    *(196 * 9 * 64 * 128, 196 * 9 * 128 * 128),
    *(7 * 7 * 128 * 256, 256 * 10),
]
FUNNEL_MLP = [784 * 512, 512 * 256, 256 * 128, 128 * 10]
SIMPLE_CNN = [26 * 26 * 9 * 32, 11 * 11 * 9 * 32 * 64, 5 * 5 * 64 * 64, 64 * 10]


@pytest.mark.parametrize(
    ("name", "by_hand"), [("deep_cnn", DEEP_CNN), ("funnel_mlp", FUNNEL_MLP), ("simple_cnn", SIMPLE_CNN)]
)
def test_the_published_networks(name, by_hand):
    model = models.build(files.load(name).model)
    assert multiply_adds(model) == sum(by_hand)
    assert training_flop(model) == 6 * sum(by_hand) - 2 * by_hand[0]  # the gradient of the image is not computed


def test_shortcuts_strides_and_depthwise_convolutions_count():
    resnet = models.build(ModelConfig(family="resnet", widths=(4, 6), convolutions=1))
    first = 784 * 9 * (1 * 4 + 4 * 4 + 4 * 4)  # the stem, a block
    second = 196 * (9 * 4 * 6 + 9 * 6 * 6 + 4 * 6)  # a block with stride 2 and its shortcut
    assert multiply_adds(resnet) == first + second + 14 * 14 * 6 * 10
    mobilenet = models.build(ModelConfig(family="mobilenet", widths=(4,), convolutions=1, pooling="average"))
    assert multiply_adds(mobilenet) == 784 * (9 * 4 + 9 * 4 + 4 * 4) + 4 * 10


def test_a_network_inside_another_counts_once_for_each_call():
    config = ModelConfig(family="mlp", widths=(16,), averaging="flip_shift")
    own = 784 * 16 + 16 * 10
    assert multiply_adds(tta.with_tta(models.build(config), config)) == 6 * own
    members = [models.build(config), models.build(ModelConfig(family="linear"))]
    assert multiply_adds(ensemble.average(members)) == own + 784 * 10


def test_a_network_without_weights_costs_nothing():
    assert multiply_adds(models.build(ModelConfig(family="naive"))) == 0


def test_fast_layers_cost_the_same_as_stock_layers():
    stock = models.build(ModelConfig(widths=(4, 6), batch_norm=True))
    fast = layers.accelerate(stock)
    assert isinstance(fast, keras.Model)
    assert multiply_adds(fast) == multiply_adds(stock) > 0
