"""The fast layers compute what the stock layers compute that they replace."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from fmnist_exp import models
from fmnist_exp.backend import hardware, layers, seeds, tensorflow_layers
from fmnist_exp.config.schema import ModelConfig

NETWORKS = [
    ModelConfig(family="mlp", widths=(16, 8), batch_norm=True),
    ModelConfig(family="cnn", widths=(4, 6), batch_norm=True, residual=True, pool_first=True),
    ModelConfig(family="cnn", widths=(4, 6), batch_norm=True, norm_position="after_activation"),
    ModelConfig(family="resnet", widths=(4,), batch_norm=True),
    ModelConfig(family="mobilenet", widths=(4, 6), batch_norm=True),
]


@pytest.fixture(autouse=True)
def prepared():
    seeds.prepare(0, "float32")


# on one thread: with several, every kernel sums in parts, in an order of its own
STEPS = """
import sys
from fmnist_exp.backend import setup
setup.start(1)
import keras, numpy as np
from fmnist_exp import models
from fmnist_exp.backend import layers, seeds
from fmnist_exp.config.schema import ModelConfig
given = np.load(sys.argv[1])
for line in sys.stdin:
    seeds.prepare(0, "float32")
    stock = models.build(ModelConfig.model_validate_json(line))
    fast = layers.accelerate(stock)
    assert type(fast.layers[-1]) is type(stock.layers[-1])
    assert "FusedBatchNormalization" in {type(layer).__name__ for layer in fast.layers}
    before = stock.get_weights()
    fast.set_weights(before)
    for model in (stock, fast):
        model.compile(keras.optimizers.SGD(0.005), "sparse_categorical_crossentropy", jit_compile=False)
        model.fit(given["images"], given["labels"], batch_size=100, shuffle=False, verbose=0)
    after = [(a, b, c) for a, b, c in zip(before, stock.get_weights(), fast.get_weights(), strict=True)]
    print(max(np.abs(b - a).max() for a, b, _ in after), max(np.abs(c - b).max() for _, b, c in after))
"""


def test_f9_the_fast_networks_learn_what_the_stock_ones_learn(small, tmp_path):
    np.savez(tmp_path / "images.npz", images=small.train.images[:200], labels=small.train.labels[:200])
    lines = "".join(config.model_dump_json() + "\n" for config in NETWORKS)
    command = [sys.executable, "-c", STEPS, str(tmp_path / "images.npz")]
    done = subprocess.run(command, input=lines, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    found = [[float(number) for number in line.split()] for line in done.stdout.splitlines()]
    assert len(found) == len(NETWORKS)
    for config, (moved, differs) in zip(NETWORKS, found, strict=True):  # moving statistics are among the weights
        # MobileNet's depthwise convolutions make more of the last bits
        assert differs <= (3e-4 if config.family == "mobilenet" else 1e-5) < 0.1 < moved


def test_in_bfloat16_only_the_activations_are_short(small):
    seeds.prepare(0, "bfloat16")
    fast = layers.accelerate(models.build(NETWORKS[1]))
    assert {weight.dtype for weight in fast.weights} == {"float32"}
    layer = next(layer for layer in fast.layers if is_fused(layer))
    assert layer(np.ones((2, 3, 3, 4), np.float32), training=True).dtype == "bfloat16"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_fast_layer_computes_what_the_stock_one_does(precision):
    import tensorflow as tf

    seeds.prepare(0, precision)
    fast_kind = type(next(layer for layer in layers.accelerate(models.build(NETWORKS[1])).layers if is_fused(layer)))
    random = np.random.default_rng(0)
    maps = tf.constant(random.normal(1, 2, size=(32, 7, 7, 8)), "bfloat16" if precision == "bfloat16" else "float32")
    wanted = tf.constant(random.normal(size=maps.shape), tf.float32)
    found = []
    for kind in (fast_kind, keras.layers.BatchNormalization):
        layer = kind(momentum=0.9)
        layer.build(maps.shape)
        layer.gamma.assign(np.linspace(0.5, 2, 8))
        with tf.GradientTape() as tape:
            tape.watch(maps)
            output = layer(maps, training=True)
            loss = tf.reduce_sum(tf.cast(output, tf.float32) * wanted)
        gradients = tape.gradient(loss, [maps, layer.gamma.value, layer.beta.value])
        found.append([np.asarray(tf.cast(one, tf.float32)) for one in (output, *gradients, *layer.get_weights())])
    tolerance = 1e-4 if precision == "float32" else 2**-6  # bfloat16 has eight bits, and rounds several times
    for ours, theirs in zip(*found, strict=True):
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.parametrize(("side", "kernel"), [(7, (3, 3)), (3, (3, 3)), (8, (2, 5)), (3, (1, 3))])
def test_the_gradient_by_columns_is_that_of_the_kernel(side, kernel):
    """In bfloat16 the layer takes it so; in float32 both ways must agree closely."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    maps, upstream = (tf.constant(random.normal(size=(5, side, side, depth)), tf.float32) for depth in (4, 6))
    shape = (*kernel, 4, 6)
    expected = tf.raw_ops.Conv2DBackpropFilter(
        input=maps, filter_sizes=shape, out_backprop=upstream, strides=[1, 1, 1, 1], padding="SAME"
    )
    found = tensorflow_layers.kernel_gradient(maps, upstream, shape)
    assert found.shape == shape
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", [3, 7, 14])
def test_the_fast_convolution_learns_what_the_stock_one_does(side, monkeypatch):
    import tensorflow as tf

    by_columns = []
    ours = tensorflow_layers.kernel_gradient
    monkeypatch.setattr(tensorflow_layers, "kernel_gradient", lambda *given: by_columns.append(given) or ours(*given))
    seeds.prepare(0, "bfloat16")
    random = np.random.default_rng(0)
    maps = tf.constant(random.normal(size=(32, side, side, 8)), tf.bfloat16)
    wanted = tf.constant(random.normal(size=(32, side, side, 16)), tf.float32)
    weights = [random.normal(size=shape) for shape in ((3, 3, 8, 16), (16,))]
    found = []
    for kind in (tensorflow_layers.FASTER[keras.layers.Conv2D], keras.layers.Conv2D):
        layer = kind(16, 3, padding="same")
        layer.build(maps.shape)
        layer.set_weights(weights)
        with tf.GradientTape() as tape:
            tape.watch(maps)
            output = layer(maps)
            loss = tf.reduce_sum(tf.cast(output, tf.float32) * wanted)
        gradients = tape.gradient(loss, [maps, layer.kernel.value, layer.bias.value])
        assert gradients[1].dtype == "float32"
        found.append([np.asarray(tf.cast(one, tf.float32)) for one in (output, *gradients)])
    assert len(by_columns) == (side <= tensorflow_layers.NARROW)
    # where bfloat16 is emulated, TensorFlow also adds up in it: both ways are 2 to 5 % away from the sum in float32
    tolerance = 2**-7 if hardware.bfloat16().is_fast else 2**-4
    for mine, theirs in zip(*found, strict=True):
        assert np.abs(mine - theirs).max() <= tolerance * np.abs(theirs).max()


def is_fused(layer):
    return type(layer).__name__ == "FusedBatchNormalization"


def test_a_frozen_layer_keeps_its_statistics(small):
    fast = layers.accelerate(models.build(NETWORKS[1]))
    layer = next(layer for layer in fast.layers if is_fused(layer))
    layer.trainable = False
    before = layer.get_weights()
    layer(np.random.default_rng(0).normal(size=(8, 3, 3, 4)), training=True)
    assert all(np.array_equal(old, new) for old, new in zip(before, layer.get_weights(), strict=True))


def test_a_network_without_such_layers_is_returned_as_it_is():
    model = models.build(ModelConfig(family="mlp"))
    assert layers.accelerate(model) is model
