"""Load the Keras network in a model's folder, after its size was worked out from its description."""

import io
import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import keras

from fmnist_exp import compat
from fmnist_exp.errors import WorkError
from fmnist_exp.export.inspection.graphs import PER_IMAGE

FLOAT = 4  # bytes
MORE = 1000  # values that a network may have beside those in its file


def load(file: Path) -> keras.Model:
    """Load a Keras file in safe mode, whose parts must have been found to be stock layers.

    A description of a few hundred bytes can make Keras allocate any amount of memory. So the network is built once
    without values: that gives the shapes of its weights, which must be about as many as the file holds, and of its
    feature maps. Raises WorkError if one of them is too large, and whatever Keras raises for a damaged file.
    """
    with zipfile.ZipFile(file) as archive:
        config: dict[str, Any] = json.loads(archive.read("config.json"))
        stored = _stored(archive.read("model.weights.h5"))
    config.pop("compile_config", None)  # an ensemble has one; Keras does not read it below either
    with compat.without_values():
        blueprint = keras.saving.deserialize_keras_object(config, safe_mode=True)
    wanted = sum(math.prod(variable.shape) for variable in blueprint.variables)
    if wanted > stored + MORE:
        raise WorkError(f"its network has {wanted:,} weights, and its file holds {stored:,}")
    largest = max(_sizes(blueprint), default=0)
    if largest * FLOAT > PER_IMAGE:
        raise WorkError(f"its network needs {largest * FLOAT:,} bytes for one image, more than {PER_IMAGE:,}")
    return keras.saving.load_model(file, compile=False, safe_mode=True)


def _stored(weights: bytes) -> int:
    """Return the number of values in an HDF5 file."""
    sizes: list[int] = []
    with h5py.File(io.BytesIO(weights)) as opened:
        opened.visititems(lambda _, found: sizes.append(found.size) if isinstance(found, h5py.Dataset) else None)
    return sum(sizes)


def _sizes(model: keras.Model) -> Iterator[int]:
    """Yield the number of values for one image of every result in a network, and in the networks inside it."""
    for nodes in compat.keras_nodes(model).values():
        yield from (math.prod(size or 1 for size in result.shape) for node in nodes for result in node.outputs)
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _sizes(layer)
