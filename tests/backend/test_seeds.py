"""A fit's repeatable start, and the clean process that the next fit finds."""

import gc
import random
import weakref

import keras
import numpy as np
import pytest

from fmnist_exp import models
from fmnist_exp.backend import layers, seeds, setup
from fmnist_exp.config.schema import ExperimentConfig, ModelConfig, TrainingConfig
from fmnist_exp.training import fit as fitting


def test_a_network_begins_the_same_if_other_threads_draw_random_numbers():
    """Dask's event loop, for one, in another thread of a worker."""
    config, begun = ModelConfig(family="mlp", widths=(8, 8), dropout=0.5), []
    for draws in (0, 1, 2):
        seeds.prepare(1, "float32")
        random.seed(draws)
        begun.append([np.asarray(variable) for variable in models.build(config).variables])  # dropout's seeds too
    seeds.prepare(2, "float32")
    other = [np.asarray(variable) for variable in models.build(config).variables]
    for again in begun[1:]:
        assert all(np.array_equal(one, two) for one, two in zip(begun[0], again, strict=True))
    assert not np.array_equal(begun[0][0], other[0])


@pytest.mark.parametrize("precision", ["float16", "auto"])
def test_unknown_precision_is_refused_and_keeps_the_current_one(precision):
    seeds.prepare(0, "bfloat16")
    with pytest.raises(KeyError):
        setup.set_precision(precision)
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    seeds.prepare(0, "float32")


def graphs():
    from tensorflow.python.framework.func_graph import FuncGraph

    return weakref.WeakSet(thing for thing in gc.get_objects() if issubclass(type(thing), FuncGraph))


@pytest.mark.parametrize(
    "model",
    [
        ModelConfig(family="mlp", widths=(8,)),
        ModelConfig(family="cnn", widths=(4, 6), batch_norm=True, pool_first=True),
    ],
    ids=["stock", "fast"],
)
def test_a_fit_leaves_no_graph_behind(model, small):
    seeds.prepare(0, "bfloat16")
    before = graphs()
    config = ExperimentConfig(model=model, training=TrainingConfig(epochs=1))
    fitting.fit(layers.accelerate(models.build(config.model)), config, small)
    left = weakref.WeakSet(graphs() - before)
    assert left
    seeds.prepare(0, "float32")
    assert not left
