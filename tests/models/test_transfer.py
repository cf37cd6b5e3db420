"""Weights are copied as far as their shapes agree, and frozen layers keep theirs."""

import numpy as np
import pytest
from support.networks import answers, mlp

from fmnist_exp import models
from fmnist_exp.config.schema import ModelConfig
from fmnist_exp.errors import RequestError
from fmnist_exp.models import transfer, tta


def test_every_layer_of_the_same_network_is_copied(small):
    origin, model = mlp(8, 6, batch_norm=True), mlp(8, 6, batch_norm=True)
    assert transfer.copy_weights(model, origin, "x") == 5  # two dense layers, two normalisations, the output
    assert np.array_equal(answers(model, small.test.images[:30]), answers(origin, small.test.images[:30]))


def test_layers_are_copied_until_their_shapes_differ():
    origin, model = mlp(8, 6), mlp(8, 7)
    fresh = model.layers[-1].get_weights()[0].copy()
    assert transfer.copy_weights(model, origin, "x") == 1
    assert np.array_equal(model.layers[2].get_weights()[0], origin.layers[2].get_weights()[0])
    assert np.array_equal(model.layers[-1].get_weights()[0], fresh)


def test_the_network_inside_test_time_augmentation_is_copied(small):
    origin, model = mlp(8), mlp(8)
    assert transfer.copy_weights(model, tta.with_tta(origin, ModelConfig(averaging="flip")), "x") == 2
    assert np.array_equal(answers(model, small.test.images[:30]), answers(origin, small.test.images[:30]))


def test_a_network_whose_first_layer_differs_is_refused():
    with pytest.raises(RequestError, match=r"model\.warm_start='models:/x/1': .* first layer"):
        transfer.copy_weights(mlp(8), mlp(9), "models:/x/1")


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
