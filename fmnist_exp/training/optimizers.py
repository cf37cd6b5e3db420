"""Optimizers with their learning-rate schedules, among them Muon.

Muon is momentum whose kernel updates are made orthogonal: Jordan et al. 2024, kellerjordan.github.io/posts/muon.
"""

from typing import Any

import keras
from keras import KerasTensor, Variable, ops

from fmnist_exp.config.schema import TrainingConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # the post's; five steps bring singular values to between 0.7 and 1.2
NEWTON_SCHULZ_STEPS = 5
CLASSES = 10


def build(training: TrainingConfig, steps: int) -> keras.optimizers.Optimizer:
    """Return a new optimizer, with its schedule over `training.epochs` epochs of `steps` steps each."""
    rate = training.learning_rate
    if training.schedule == "one_cycle":
        # Smith 2018, "Super-Convergence" (arXiv:1708.07120): a linear warm-up, then a cosine to zero
        warmup = int(training.warmup * steps * training.epochs)
        cosine = steps * training.epochs - warmup
        rate = keras.optimizers.schedules.CosineDecay(rate / 25, cosine, warmup_target=rate, warmup_steps=warmup)
    average: dict[str, Any] = {"use_ema": True, "ema_momentum": training.ema} if training.ema else {}
    match training.optimizer:
        case "adam":
            return keras.optimizers.Adam(rate, **average)
        case "adamw":
            return keras.optimizers.AdamW(rate, weight_decay=training.weight_decay, **average)
        case "sgd" | "muon":
            kind = Muon if training.optimizer == "muon" else keras.optimizers.SGD
            decay = training.weight_decay or None
            return kind(rate, momentum=training.momentum, nesterov=True, weight_decay=decay, **average)


class Muon(keras.optimizers.SGD):
    """SGD with Nesterov momentum that replaces the update of a kernel by the nearest orthogonal matrix.

    A convolution's kernel (height, width, in, out) counts as a matrix (height · width · in, out); Keras' own Muon
    leaves it to AdamW. Vectors, depthwise kernels and the output layer take the plain step at the same learning rate;
    so does every other layer of at most 10 units, which cannot be told from the output layer.

    Two parts of earlier implementations are left out: Jordan's factor max(1, rows / columns) ** 0.5 on the update, and
    the normalisation of the weights in airbench (github.com/KellerJordan/cifar10-airbench). The learning rates of the
    shipped experiments were chosen without them.
    """

    def update_step(self, gradient: KerasTensor, variable: Variable, learning_rate: KerasTensor) -> None:  # noqa: D102
        if len(variable.shape) not in (2, 4) or variable.shape[-1] <= CLASSES:
            super().update_step(gradient, variable, learning_rate)
            return
        if self.momentum:  # Keras keeps no velocity for a momentum of 0
            velocity = self.momentums[self._get_variable_index(variable)]
            self.assign(velocity, self.momentum * velocity + gradient)
            gradient = gradient + self.momentum * velocity
        update = orthogonal(ops.reshape(gradient, (-1, variable.shape[-1])))  # (fan in, out)
        self.assign_sub(variable, learning_rate * ops.reshape(update, variable.shape))


def orthogonal(matrix: KerasTensor) -> KerasTensor:
    """Return `matrix` (rows, columns) with all singular values near 1, by Newton and Schulz' iteration.

    Each step multiplies by a polynomial of the Gram matrix of the shorter side. All steps run on Gram matrices, so the
    longer side takes part in two products only: a quarter of the work for a 3×3 convolution.
    """
    matrix = matrix / (ops.norm(matrix) + 1e-7)
    tall, transposed = matrix.shape[0] > matrix.shape[1], ops.transpose(matrix)
    gram = transposed @ matrix if tall else matrix @ transposed
    a, b, c = NEWTON_SCHULZ
    product = identity = ops.eye(gram.shape[0])
    for _ in range(NEWTON_SCHULZ_STEPS):
        step = a * identity + b * gram + c * (gram @ gram)
        product = step @ product
        gram = step @ (gram @ step)
    return matrix @ product if tall else product @ matrix
