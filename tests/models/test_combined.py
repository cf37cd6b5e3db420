"""Networks made of others: averaged views, ensembles, borrowed and frozen weights."""

import keras
import numpy as np
import pytest

from fmnist_exp import models
from fmnist_exp.backend import seeds
from fmnist_exp.config.schema import ModelConfig
from fmnist_exp.errors import RequestError
from fmnist_exp.export import onnx as onnx_export
from fmnist_exp.models import ensemble, transfer, tta


@pytest.fixture(autouse=True)
def prepared():
    seeds.prepare(0, "float32")


@pytest.fixture
def few(small) -> np.ndarray:
    return small.test.images[:30]


def mlp(*widths: int, **fields) -> keras.Model:
    return models.build(ModelConfig(family="mlp", widths=widths, **fields))


def answers(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.asarray(model(images))


def moved(images: np.ndarray, down: int, right: int) -> np.ndarray:
    bordered = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    return bordered[:, 1 - down : 29 - down, 1 - right : 29 - right]


def reloaded(model: keras.Model, folder) -> keras.Model:
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras", safe_mode=True)


def exported(model: keras.Model, images: np.ndarray, folder) -> np.ndarray:
    import onnxruntime

    onnx_export.export(model, folder / "model.onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


# averaging


def test_without_averaging_it_is_the_same_model():
    model = mlp(8)
    assert tta.averaged(model, ModelConfig()) is model


@pytest.mark.parametrize(
    ("averaging", "moves"), [("flip", [(0, 0)]), ("flip_shift", [(0, 0), (1, 1), (-1, -1)])], ids=["flip", "flip_shift"]
)
def test_the_answer_is_the_mean_over_the_views(averaging, moves, few, tmp_path):
    model = mlp(8)
    both = tta.averaged(model, ModelConfig(averaging=averaging))
    views = [moved(few, *move) for move in moves]
    views += [view[:, :, ::-1] for view in views]
    expected = np.mean([answers(model, view) for view in views], axis=0)
    assert np.allclose(answers(both, few), expected, atol=1e-6)
    assert not np.allclose(answers(both, few), answers(model, few), atol=1e-3)
    assert np.array_equal(answers(reloaded(both, tmp_path), few), answers(both, few))
    assert np.allclose(exported(both, few, tmp_path), expected, atol=1e-5)


# ensembles


def test_an_ensemble_answers_with_the_mean_of_its_members(few, tmp_path):
    members = [mlp(8), mlp(16, 8), models.build(ModelConfig(widths=(4,), batch_norm=True)), mlp(8)]
    expected = np.mean([answers(member, few) for member in members], axis=0)
    model = ensemble.ensemble(members)
    assert np.allclose(answers(model, few), expected, atol=1e-6)
    assert not model.trainable_weights
    assert model.count_params() == sum(member.count_params() for member in members)
    assert np.allclose(answers(reloaded(model, tmp_path), few), expected, atol=1e-6)
    assert np.allclose(exported(model, few, tmp_path), expected, atol=1e-5)


def test_an_ensemble_of_ensembles(few):
    first, second = ensemble.ensemble([mlp(8), mlp(8)]), ensemble.ensemble([mlp(8), mlp(8)])
    expected = (answers(first, few) + answers(second, few)) / 2
    assert np.allclose(answers(ensemble.ensemble([first, second]), few), expected, atol=1e-6)


# borrowed weights


def test_a_warm_start_takes_every_layer_of_the_same_network(few):
    origin, model = mlp(8, 6, batch_norm=True), mlp(8, 6, batch_norm=True)
    assert transfer.start_warm(model, origin, "x") == 5  # two dense layers, two normalisations, the output
    assert np.array_equal(answers(model, few), answers(origin, few))


def test_a_warm_start_takes_what_fits_from_the_first_layer_on():
    origin, model = mlp(8, 6), mlp(8, 7)
    fresh = model.layers[-1].get_weights()[0].copy()
    assert transfer.start_warm(model, origin, "x") == 1
    assert np.array_equal(model.layers[2].get_weights()[0], origin.layers[2].get_weights()[0])
    assert np.array_equal(model.layers[-1].get_weights()[0], fresh)


def test_a_warm_start_finds_the_network_inside_of_an_averaged_one(few):
    origin, model = mlp(8), mlp(8)
    assert transfer.start_warm(model, tta.averaged(origin, ModelConfig(averaging="flip")), "x") == 2
    assert np.array_equal(answers(model, few), answers(origin, few))


def test_a_warm_start_from_another_network_is_refused():
    with pytest.raises(RequestError, match=r"model\.warm_start='models:/x/1': its first layer has other weights"):
        transfer.start_warm(mlp(8), mlp(9), "models:/x/1")


def test_frozen_layers_keep_their_weights(small):
    model = mlp(8, 6, batch_norm=True)
    transfer.freeze(model, 2)
    before = model.get_weights()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(small.train.images, small.train.labels, verbose=0)
    kept = [np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True)]
    assert kept[:5] == [True] * 5  # a kernel, a normalisation's four
    assert not any(kept[5:])


def test_freezing_everything_is_refused():
    with pytest.raises(RequestError, match=r"model\.frozen=3: must be below 3"):
        transfer.freeze(mlp(8, 6), 3)
    naive = models.build(ModelConfig(family="naive"))
    transfer.freeze(naive, 0)
