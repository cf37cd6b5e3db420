"""Count the multiply-adds of a network's convolutions and dense layers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fmnist_exp import compat

if TYPE_CHECKING:
    import keras

PASSES = 3  # of a training step: forward, the gradient of the weights, the gradient of the inputs


def multiply_adds(model: keras.Model) -> int:
    """Return the multiply-adds (a multiplication with its addition) of one image on its way through `model`.

    A network inside the model counts once for each call. Normalisation, activation and pooling are left out; they are
    about a hundredth of the work.
    """
    return sum(work for work, _ in _uses(model))


def training_flop(model: keras.Model) -> int:
    """Return the floating-point operations of one image in a training step: two per multiply-add and pass.

    The layers that see the image itself need no gradient of their input.
    """
    return sum(2 * (PASSES - sees_image) * work for work, sees_image in _uses(model))


def _uses(model: keras.Model) -> Iterator[tuple[int, bool]]:
    """Yield the multiply-adds of each use of a layer, and whether no layer with weights lies before it."""
    import keras

    learned: set[int] = set()  # ids of tensors that depend on weights
    levels = compat.keras_nodes(model)
    for depth in sorted(levels, reverse=True):  # from the input to the output
        for node in levels[depth]:
            layer = node.operation
            sees_image = not learned.intersection(map(id, node.input_tensors))
            if isinstance(layer, keras.Model):
                yield from ((work, inside and sees_image) for work, inside in _uses(layer))
            elif hasattr(layer, "kernel"):
                places = math.prod(node.outputs[0].shape[1:-1])  # where it is applied: pixels of the output's maps
                yield places * math.prod(layer.kernel.shape), sees_image
            if not sees_image or getattr(layer, "weights", None):
                learned.update(map(id, node.outputs))
