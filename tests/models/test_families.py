"""The contract of every model family: its networks, the fields that it declares, and its check."""

import subprocess
import sys
import typing

import keras
import numpy as np
import pytest
from support.networks import answers, kinds, mlp, onnx_answers, saved_and_loaded

from fmnist_exp import models
from fmnist_exp.config.schema import ModelConfig
from fmnist_exp.errors import RequestError
from fmnist_exp.models import COMMON, FAMILIES, NEEDS


@pytest.fixture
def pair(small) -> np.ndarray:
    return small.train.images[:2]


def with_other_weights(model: keras.Model) -> keras.Model:
    """Weights as after some training: no zeros, moving averages that move something, variances above zero."""
    random = np.random.default_rng(0)
    model.set_weights([w * random.uniform(0.9, 1.1) + random.uniform(0, 0.005, w.shape) for w in model.get_weights()])
    return model


# the networks

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
NETWORKS = [
    *[pytest.param(ModelConfig(family=name), id=name) for name in FAMILIES],
    *[pytest.param(EVERYTHING.model_copy(update={"family": name}), id=f"{name}, all on") for name in FAMILIES],
    pytest.param(ModelConfig(family="mlp", widths=()), id="mlp without layers"),
    pytest.param(ModelConfig(family="cnn", widths=()), id="cnn without blocks"),
    pytest.param(ModelConfig(batch_norm=True, norm_position="after_activation", padding="valid"), id="cnn, notebook"),
    pytest.param(ModelConfig(widths=(2,) * 8, activation="silu"), id="cnn, deeper than the image can be halved"),
]


@pytest.mark.parametrize("config", NETWORKS)
def test_images_in_probabilities_out(config, pair):
    model = models.build(config)
    assert (model.input_shape, model.inputs[0].dtype) == ((None, 28, 28), "uint8")
    probabilities = answers(model, pair)
    assert (probabilities.shape, probabilities.dtype) == ((2, 10), np.float32)
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (probabilities >= 0).all()


@pytest.mark.parametrize("config", NETWORKS)
def test_stock_layers_only(config):
    for layer in models.build(config)._flatten_layers():
        assert type(layer).__module__.startswith("keras."), layer


@pytest.mark.parametrize("config", NETWORKS)
def test_saved_and_loaded_in_safe_mode_it_answers_the_same(config, pair, tmp_path):
    model = with_other_weights(models.build(config))
    assert np.array_equal(answers(saved_and_loaded(model, tmp_path), pair), answers(model, pair))


@pytest.mark.parametrize("config", NETWORKS)
def test_exported_to_onnx_it_answers_the_same(config, small, tmp_path):
    model, images = with_other_weights(models.build(config)), small.test.images[:20]
    assert np.abs(onnx_answers(model, images, tmp_path) - answers(model, images)).max() < 1e-4


@pytest.mark.parametrize("config", [case for case in NETWORKS if not case.id.startswith("naive")])
def test_the_answer_depends_on_the_image(config, pair):
    first, second = answers(with_other_weights(models.build(config)), pair)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("config", NETWORKS)
def test_description_has_a_row_per_layer(config):
    model = models.build(config)
    first, *rows = models.describe(model)
    assert first == ("Input", "28 × 28 uint8", 0)
    assert [description.split()[0] for description, _, _ in rows] == kinds(model)[-len(rows) :]
    assert sum(parameters for _, _, parameters in rows) == model.count_params()
    assert rows[-1][1] == "10"


def test_description_says_the_sizes():
    assert models.describe(mlp(8, dropout=0.25))[3:] == [
        ("Dense 8", "8", 6280),
        ("Activation relu", "8", 0),
        ("Dropout 0.25", "8", 0),
        ("Dense 10 softmax", "10", 90),
    ]
    cnn = models.describe(models.build(ModelConfig(widths=(4,), convolutions=1)))
    assert ("Conv2D 4 3×3", "28 × 28 × 4", 40) in cnn


# the declared fields

BEFORE = ModelConfig(widths=(4, 5), dropout=0.1, l2=0.1, batch_norm=True, head_widths=(6,))
AFTER = {
    "widths": (4, 6),
    "dropout": 0.2,
    "l2": 0.2,
    "batch_norm": False,
    "norm_position": "after_activation",
    "norm_first_only": True,
    "activation": "silu",
    "convolutions": 1,
    "residual": True,
    "pool_first": True,
    "kernel_size": 5,
    "padding": "valid",
    "stem_stride": 2,
    "pooling": "average",
    "head_widths": (7,),
    "head_batch_norm": False,
    "head_dropout": 0.3,
    "averaging": "flip",
    "members": ("models:/x/1",),
    "warm_start": "models:/x/1",
    "frozen": 1,
}


def layers(config: ModelConfig) -> list[tuple[str, str]]:
    """Return the kind and the settings of every layer, without the names that Keras counts up."""
    return [(type(x).__name__, str({**x.get_config(), "name": ""})) for x in models.build(config).layers]


def test_every_field_is_tried():
    assert {*AFTER, "family"} == set(ModelConfig.model_fields)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_declared_fields_change_the_layers_and_no_other_does(family):
    before = BEFORE.model_copy(update={"family": family})
    unchanged = layers(before)
    changing = {name for name, value in AFTER.items() if layers(before.model_copy(update={name: value})) != unchanged}
    assert changing == FAMILIES[family].fields
    assert models.used_fields(family) == changing | COMMON


@pytest.mark.parametrize(("field", "needed"), NEEDS.items())
def test_a_field_that_needs_another_changes_nothing_without_it(field, needed):
    before = BEFORE.model_copy(update={needed: False})
    assert layers(before.model_copy(update={field: AFTER[field]})) == layers(before)


# the checks


def test_an_unknown_family_is_answered_with_those_that_exist():
    with pytest.raises(RequestError, match=rf"'mpl': must be one of {', '.join(FAMILIES)}; did you mean 'mlp'\?"):
        models.check(ModelConfig(family="mpl"))


@pytest.mark.parametrize("family", ["resnet", "mobilenet"])
def test_a_stem_needs_a_width(family):
    with pytest.raises(RequestError, match="needs at least one width"):
        models.check(ModelConfig(family=family, widths=()))


@pytest.mark.parametrize("pool_first", [False, True])
@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_maps_without_a_pixel_are_refused_and_all_others_are_built(pool_first, stem_stride, kernel_size):
    fields: dict[str, typing.Any] = {"pool_first": pool_first, "stem_stride": stem_stride, "kernel_size": kernel_size}
    configs = [ModelConfig(widths=(2,) * depth, padding="valid", **fields) for depth in range(1, 9)]
    built = []
    for config in configs:
        try:
            built.append(models.build(config))
        except RequestError as error:
            assert "no pixel of the maps is left" in str(error)  # noqa: PT017
    assert 0 < len(built) < len(configs)


def test_a_wrong_family_is_noticed_before_keras_is_loaded():
    code = """
import sys
from fmnist_exp import models
from fmnist_exp.config.schema import ModelConfig
try:
    models.build(ModelConfig(family="x"))
except ValueError:
    print([name for name in ("keras", "tensorflow") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
