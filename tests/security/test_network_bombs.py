"""Keras files whose description makes Keras allocate far more than the file holds: refused before anything is built."""

import json
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from fmnist_exp import models
from fmnist_exp.config.schema import ModelConfig
from fmnist_exp.errors import WorkError
from fmnist_exp.export import layout, network
from fmnist_exp.models import ensemble, tta

MANY = 10**9


def rewrite(file: Path, change: Any) -> None:
    """Replace the description of a Keras file by what `change` makes of it."""
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["config.json"] = json.dumps(change(json.loads(parts["config.json"]))).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def layer(kind: str, **config: Any) -> dict[str, Any]:
    named = {"name": f"{kind}_{len(str(config))}", **config}
    return {"module": "keras.layers", "class_name": kind, "config": named, "registered_name": None}


def insert(*added: dict[str, Any]) -> Any:
    def change(config: dict[str, Any]) -> dict[str, Any]:
        config["config"]["layers"][2:2] = added  # after the input and the layer that flattens
        return config

    return change


def nested(config: dict[str, Any]) -> dict[str, Any]:
    """Put a network inside the network, and the bomb into that."""
    inner = keras.Sequential([keras.Input((784,)), keras.layers.Reshape((784, 1)), keras.layers.Flatten()], name="in")
    found = keras.saving.serialize_keras_object(inner)
    bomb = [layer("UpSampling1D", size=10**6), layer("MaxPooling1D", pool_size=10**6)]
    found["config"]["layers"][2:2] = bomb
    return insert(found)(config)


METRIC = layer("AUC", num_thresholds=MANY) | {"module": "keras.metrics"}


def hidden(config: dict[str, Any]) -> dict[str, Any]:
    """Put the network inside a layer that repeats it."""
    return insert(layer("TimeDistributed", layer=layer("Dense", units=4)))(config)


BOMBS = {
    "a billion units": (insert(layer("Dense", units=MANY), layer("Dense", units=784)), "weights, and its file holds"),
    "a billion rows": (insert(layer("RepeatVector", n=MANY), layer("GlobalMaxPooling1D")), "bytes for one image"),
    "a network inside": (nested, "bytes for one image"),
}


@pytest.mark.attack("layers whose memory cannot be seen, and metrics that take it", entry="loading of a Keras network")
@pytest.mark.parametrize("change", [insert(layer("Attention")), hidden, insert(METRIC)], ids=["attention", "in", "AUC"])
def test_parts_that_hide_their_memory_are_refused(tmp_path, change):
    file = tmp_path / layout.KERAS_MODEL
    file.parent.mkdir()
    keras.Sequential([keras.Input((28, 28), dtype="uint8"), keras.layers.Flatten(), keras.layers.Dense(10)]).save(file)
    layout.check_network(tmp_path)
    rewrite(file, change)
    with pytest.raises(WorkError, match="is not a stock Keras layer"):
        layout.check_network(tmp_path)


@pytest.mark.attack("a description that makes Keras allocate gigabytes", entry="loading of a Keras network")
@pytest.mark.parametrize("name", BOMBS)
def test_a_description_of_a_huge_network_is_refused(tmp_path, name):
    change, reason = BOMBS[name]
    file = tmp_path / "model.keras"
    layers = [keras.Input((28, 28), dtype="uint8"), keras.layers.Flatten(), keras.layers.Dense(10)]
    keras.Sequential(layers).save(file)
    rewrite(file, change)
    with pytest.raises(WorkError, match=reason) as error:
        network.load(file)
    assert "\n" not in str(error.value)


NETWORKS = {
    "cnn": ModelConfig(family="cnn", widths=(4, 6), batch_norm=True, residual=True, pool_first=True, dropout=0.1),
    "resnet": ModelConfig(family="resnet", widths=(4,), batch_norm=True),
    "mobilenet": ModelConfig(family="mobilenet", widths=(4, 6)),
    "mlp": ModelConfig(family="mlp", widths=(8,), dropout=0.2),
    "naive": ModelConfig(family="naive"),
    "linear": ModelConfig(family="linear"),
}


@pytest.mark.parametrize("family", NETWORKS)
def test_honest_networks_load_with_their_weights(tmp_path, small, family):
    own = models.build(NETWORKS[family])
    averaged = tta.with_tta(own, NETWORKS[family].model_copy(update={"averaging": "flip_shift"}))
    for number, model in enumerate((own, averaged, ensemble.average([own, models.build(NETWORKS[family])]))):
        file = tmp_path / f"{number}.keras"
        if number == 2:  # ensembles are logged like this
            model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.save(file)
        found = network.load(file)
        assert all(map(np.array_equal, found.get_weights(), model.get_weights()))
        images = small.test.images[:4]
        assert np.array_equal(np.asarray(found(images)), np.asarray(model(images)))
