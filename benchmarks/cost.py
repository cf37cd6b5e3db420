"""What a network costs: the multiplications of its convolutions and dense layers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

PASSES = 3  # of a training step: forward, the gradient of the weights, the gradient of the inputs


def multiply_adds(model: keras.Model) -> int:
    """Multiplications, each with its addition, that one image takes through `model`, forward.

    Networks inside of it count once for each time that they are asked. Normalisation, activation and pooling, a
    hundredth of the work, are left out.
    """
    return sum(work for work, _ in _uses(model))


def training_flop(model: keras.Model) -> int:
    """Floating-point operations of one image in a training step: two per multiply-add, forward and backward.

    Layers that see the image itself need no gradient of their input.
    """
    return sum(2 * (PASSES - sees_image) * work for work, sees_image in _uses(model))


def _uses(model: keras.Model) -> Iterator[tuple[int, bool]]:
    """The multiply-adds of each use of a layer, and whether nothing that learns lies between it and the image."""
    import keras

    learned: set[int] = set()  # ids of tensors that depend on weights
    levels = getattr(model, "_functional", model)._nodes_by_depth
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
