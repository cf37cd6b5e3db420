"""What a network costs: the multiplications of its convolutions and dense layers."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

PASSES = 3  # of a training step: forward, the gradient of the inputs, the gradient of the weights


def multiply_adds(model: keras.Model) -> int:
    """Multiplications, each with its addition, that one image takes through `model`, forward.

    Networks inside of it count once for each time that they are asked. Normalisation, activation and pooling, a
    hundredth of the work, are left out.
    """
    import keras

    total = 0
    levels = getattr(model, "_functional", model)._nodes_by_depth
    for node in itertools.chain(*levels.values()):  # each use of a layer is one
        layer = node.operation
        if isinstance(layer, keras.Model):
            total += multiply_adds(layer)
        elif hasattr(layer, "kernel"):
            places = math.prod(node.outputs[0].shape[1:-1])  # where it is applied: pixels of the output's maps
            total += places * math.prod(layer.kernel.shape)
    return total


def training_flop(model: keras.Model) -> int:
    """Floating-point operations of one image in a training step: two per multiply-add, forward and backward."""
    return 2 * PASSES * multiply_adds(model)
