"""Muon: momentum whose kernel updates are made orthogonal (Jordan et al. 2024, kellerjordan.github.io/posts/muon)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keras import optimizers

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # the paper's; five steps bring singular values to between 0.7 and 1.2
STEPS = 5
CLASSES = 10


def muon(learning_rate: Any, momentum: float, weight_decay: float, **options: Any) -> optimizers.Optimizer:
    """SGD with Nesterov momentum; updates of kernels are replaced by the nearest orthogonal matrix.

    A convolution's kernel (height, width, in, out) counts as a matrix (height · width · in, out), where Keras' own Muon
    takes AdamW. Vectors, depthwise kernels and the ten-class output keep the plain step at the same learning rate.
    """
    return _kind()(learning_rate, momentum=momentum, nesterov=True, weight_decay=weight_decay or None, **options)


@functools.cache
def _kind() -> type[optimizers.Optimizer]:
    from keras import ops, optimizers

    class Muon(optimizers.SGD):
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            if not _is_kernel(variable):
                super().update_step(gradient, variable, learning_rate)
                return
            if self.momentum:  # Keras keeps no velocity for a momentum of 0
                velocity = self.momentums[self._get_variable_index(variable)]
                self.assign(velocity, self.momentum * velocity + gradient)
                gradient = gradient + self.momentum * velocity
            update = orthogonal(ops.reshape(gradient, (-1, variable.shape[-1])))  # (fan in, out)
            self.assign_sub(variable, learning_rate * ops.reshape(update, variable.shape))

    return Muon


def _is_kernel(variable: Any) -> bool:
    shape = variable.shape
    return len(shape) in (2, 4) and shape[-1] > CLASSES


def orthogonal(matrix: Any) -> Any:
    """The matrix (rows, columns) with all singular values near 1, by Newton and Schulz' iteration.

    Each step multiplies by a polynomial of the Gram matrix of the shorter side. All steps are done on Gram matrices, so
    that the long side is met twice only: a quarter of the work for a 3×3 convolution.
    """
    from keras import ops

    matrix = matrix / (ops.norm(matrix) + 1e-7)
    tall = matrix.shape[0] > matrix.shape[1]
    turned = ops.transpose(matrix)
    gram = turned @ matrix if tall else matrix @ turned
    a, b, c = NEWTON_SCHULZ
    unit = ops.eye(gram.shape[0])
    product = unit
    for _ in range(STEPS):
        step = a * unit + b * gram + c * (gram @ gram)
        product = step @ product
        gram = step @ (gram @ step)
    return matrix @ product if tall else product @ matrix
