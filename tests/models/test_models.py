"""The contract of every family in the registry, and what each field of ModelConfig does to the layers."""

import subprocess
import sys
import typing

import numpy as np
import pytest

from fmnist_exp import models
from fmnist_exp.backend import seeds
from fmnist_exp.config.schema import ModelConfig
from fmnist_exp.errors import RequestError
from fmnist_exp.export import onnx as onnx_export
from fmnist_exp.models import MODELS


@pytest.fixture(autouse=True)
def keras():
    seeds.prepare(0, "float32")
    import keras

    return keras


@pytest.fixture
def pair(small) -> np.ndarray:
    return small.train.images[:2]


def kinds(model) -> list[str]:
    return [type(layer).__name__ for layer in model.layers]


def answers(model, images) -> np.ndarray:
    return np.asarray(model(images))


def with_other_weights(model):
    """Weights as after some training: no zeros, moving averages that move something, variances above zero."""
    random = np.random.default_rng(0)
    model.set_weights([w * random.uniform(0.9, 1.1) + random.uniform(0, 0.005, w.shape) for w in model.get_weights()])
    return model


# the contract

ACTIVATIONS = typing.get_args(ModelConfig.model_fields["activation"].annotation)
EVERYTHING = ModelConfig(
    widths=(3, 4, 5),
    dropout=(0.1, 0.2, 0.3),
    l2=0.1,
    batch_norm=True,
    activation="silu",
    convolutions=(1, 2, 3),
    residual=True,
    pool_first=True,
    kernel_size=4,
    stem_stride=2,
    pooling="average",
    head_widths=(7, 6),
    head_dropout=0.4,
)
CONVOLUTIONAL = ["resnet", "mobilenet"]
FAMILIES = [
    *[pytest.param(ModelConfig(family=name), id=name) for name in MODELS],
    pytest.param(ModelConfig(family="mlp", widths=()), id="mlp without layers"),
    pytest.param(ModelConfig(family="cnn", widths=()), id="cnn without blocks"),
    pytest.param(ModelConfig(family="mlp", widths=(8, 4), dropout=0.5, l2=0.1, batch_norm=True), id="mlp, all on"),
    pytest.param(EVERYTHING, id="cnn, all on"),
    *[pytest.param(EVERYTHING.model_copy(update={"family": name}), id=f"{name}, all on") for name in CONVOLUTIONAL],
    pytest.param(ModelConfig(batch_norm=True, norm_position="after_activation", padding="valid"), id="cnn, notebook"),
    *[pytest.param(ModelConfig(family="mlp", widths=(8,), activation=name), id=f"mlp, {name}") for name in ACTIVATIONS],
    pytest.param(ModelConfig(widths=(2,) * 8, activation="silu"), id="cnn, deeper than the image can be halved"),
]


@pytest.mark.parametrize("config", FAMILIES)
def test_images_in_probabilities_out(config, pair):
    model = models.build(config)
    assert (model.input_shape, model.inputs[0].dtype) == ((None, 28, 28), "uint8")
    probabilities = answers(model, pair)
    assert (probabilities.shape, probabilities.dtype) == ((2, 10), np.float32)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (probabilities >= 0).all()


@pytest.mark.parametrize("config", FAMILIES)
def test_stock_layers_only(config):
    for layer in models.build(config)._flatten_layers():
        assert type(layer).__module__.startswith("keras."), layer


@pytest.mark.parametrize("config", FAMILIES)
def test_saved_and_loaded_in_safe_mode_it_answers_the_same(keras, config, pair, tmp_path):
    model = with_other_weights(models.build(config))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    assert np.array_equal(answers(loaded, pair), answers(model, pair))


@pytest.mark.parametrize("config", FAMILIES)
def test_exported_to_onnx_it_answers_the_same(config, small, tmp_path):
    import onnxruntime

    model = with_other_weights(models.build(config))
    file = tmp_path / "model.onnx"
    onnx_export.export(model, file)
    expected = answers(model, small.test.images[:20])
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(None, {session.get_inputs()[0].name: small.test.images[:20]})
    assert np.abs(probabilities - expected).max() < 1e-4


@pytest.mark.parametrize("config", [case for case in FAMILIES if case.id not in ("naive",)])
def test_the_answer_depends_on_the_image(config, pair):
    first, second = answers(with_other_weights(models.build(config)), pair)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("config", FAMILIES)
def test_description_has_a_row_per_layer(config):
    model = models.build(config)
    first, *rows = models.describe(model)
    assert first == ("Input", "28 × 28 uint8", 0)
    assert [description.split()[0] for description, _, _ in rows] == kinds(model)[-len(rows) :]
    assert sum(parameters for _, _, parameters in rows) == model.count_params()
    assert rows[-1][1] == "10"


def test_an_unknown_family_is_answered_with_those_that_exist():
    with pytest.raises(
        RequestError, match=r"'mpl': must be one of naive, linear, mlp, cnn, resnet, mobilenet; did you mean 'mlp'\?"
    ):
        models.check(ModelConfig(family="mpl"))


# the families


def test_naive_gives_every_class_a_tenth(small):
    model = models.build(ModelConfig(family="naive"))
    assert np.allclose(answers(model, small.test.images), 0.1)
    assert model.count_params() == 0


def test_parameters_of_known_networks():
    mlp = ModelConfig(family="mlp", widths=(512, 256, 128), dropout=0.3)
    assert models.build(mlp).count_params() == 567_434
    assert models.build(ModelConfig(family="linear")).count_params() == 784 * 10 + 10


def test_pixels_are_put_on_the_scale_of_the_training_set(data):
    scaling = models.build(ModelConfig(family="linear")).layers[0]
    scaled = np.asarray(scaling(data.train.images.astype("float32")))
    assert scaled.mean() == pytest.approx(0, abs=0.01)
    assert scaled.std() == pytest.approx(1, abs=0.01)


def test_description_says_the_sizes():
    mlp = models.build(ModelConfig(family="mlp", widths=(8,), dropout=0.25))
    assert models.describe(mlp)[3:] == [
        ("Dense 8", "8", 6280),
        ("Activation relu", "8", 0),
        ("Dropout 0.25", "8", 0),
        ("Dense 10 softmax", "10", 90),
    ]
    cnn = models.describe(models.build(ModelConfig(widths=(4,), convolutions=1)))
    assert ("Conv2D 4 3×3", "28 × 28 × 4", 40) in cnn


# fields


def mlp(**fields):
    return models.build(ModelConfig(family="mlp", **{"widths": (8, 6), **fields}))


def cnn(**fields):
    return models.build(ModelConfig(family="cnn", **{"widths": (4, 6), **fields}))


@pytest.mark.parametrize("build", [mlp, cnn])
def test_dropout(build):
    assert "Dropout" not in kinds(build())
    for dropout, rates in ((0.2, [0.2, 0.2]), ((0.1, 0.3), [0.1, 0.3]), ((0.0, 0.3), [0.3])):
        model = build(dropout=dropout)
        assert [layer.rate for layer in model.layers if type(layer).__name__ == "Dropout"] == rates


@pytest.mark.parametrize("build", [mlp, cnn])
def test_l2_is_on_every_kernel(build):
    assert not build().losses
    model = build(l2=0.5)
    kernels = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
    assert len(model.losses) == len(kernels)
    expected = 0.5 * sum(float((np.asarray(kernel) ** 2).sum()) for kernel in kernels)
    assert sum(map(float, model.losses)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("build", [mlp, cnn])
def test_batch_norm_stands_before_each_activation_and_takes_the_bias(build):
    model = build(batch_norm=True)
    places = [i for i, kind in enumerate(kinds(model)) if kind == "Activation"]
    assert len(places) == kinds(build()).count("Activation")
    assert {kinds(model)[place - 1] for place in places} == {"BatchNormalization"}
    assert [layer.use_bias for layer in model.layers if hasattr(layer, "kernel")][-1]
    assert not any([layer.use_bias for layer in model.layers if hasattr(layer, "kernel")][:-1])


@pytest.mark.parametrize("build", [mlp, cnn])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(build, name):
    model = build(activation=name)
    assert {layer.activation.__name__ for layer in model.layers if type(layer).__name__ == "Activation"} == {name}


@pytest.mark.parametrize(("convolutions", "filters"), [(1, [4, 6]), (2, [4, 4, 6, 6]), ((1, 3), [4, 6, 6, 6])])
def test_convolutions_per_block(convolutions, filters):
    model = cnn(convolutions=convolutions)
    assert [layer.filters for layer in model.layers if type(layer).__name__ == "Conv2D"] == filters
    assert kinds(model).count("MaxPooling2D") == 2


def test_residual_adds_the_input_of_every_later_convolution():
    assert "Add" not in kinds(cnn(convolutions=3))
    model = cnn(convolutions=(1, 3), residual=True)
    assert kinds(model).count("Add") == 2
    for layer in model.layers:
        if type(layer).__name__ == "Add":
            branch, skipped = (tensor._keras_history.operation for tensor in layer.input)
            assert type(branch).__name__ == "Activation"
            assert type(skipped).__name__ in ("Activation", "Add")


def test_pool_first_pools_straight_after_the_first_convolution():
    last, first = kinds(cnn()), kinds(cnn(pool_first=True))
    assert [last[i - 1] for i, kind in enumerate(last) if kind == "MaxPooling2D"] == ["Activation"] * 2
    assert [first[i - 1] for i, kind in enumerate(first) if kind == "MaxPooling2D"] == ["Conv2D"] * 2
    assert cnn().count_params() == cnn(pool_first=True).count_params()


def test_pooling_of_the_last_maps():
    assert cnn().layers[-1].input.shape == (None, 7 * 7 * 6)
    assert cnn(pooling="average").layers[-1].input.shape == (None, 6)


def test_head():
    model = cnn(head_widths=(9, 8), head_dropout=0.4)
    assert [layer.units for layer in model.layers if type(layer).__name__ == "Dense"] == [9, 8, 10]
    assert kinds(model)[-2] == "Dropout"
    assert model.layers[-2].rate == 0.4


def test_kernel_size_and_stem_stride():
    convolutions = [x for x in cnn(kernel_size=5, stem_stride=2).layers if type(x).__name__ == "Conv2D"]
    assert {layer.kernel_size for layer in convolutions} == {(5, 5)}
    assert [layer.strides for layer in convolutions] == [(2, 2), (1, 1), (1, 1), (1, 1)]


def test_a_wrong_family_is_noticed_before_keras_is_loaded():
    code = """
import sys
from fmnist_exp import models
from fmnist_exp.config import ModelConfig
try:
    models.build(ModelConfig(family="x"))
except ValueError:
    print([name for name in ("keras", "tensorflow") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
