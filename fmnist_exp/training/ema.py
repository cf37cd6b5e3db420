"""Weight averaging: a model is validated and saved with the exponential moving average of its weights."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

from fmnist_exp.training.state import Array, Memory


class AveragedWeights(keras.callbacks.Callback):
    """Put the optimizer's averages into the model for validation, until the first step of the next epoch.

    Callbacks that act at an epoch's end, such as early stopping, find the averages in the model. Only trainable weights
    are averaged: the moving statistics of batch normalization stay as the steps leave them. Keras' own SwapEMAWeights
    exchanges weights and averages by adding and subtracting, which changes the last bits of both.
    """

    def __init__(self) -> None:
        super().__init__()
        self._trained: list[Array] = []  # the weights of the last step, while the averages replace them

    def state(self) -> Memory:
        """Return the trained weights, which the model itself does not hold between two epochs."""
        return Memory(arrays=self._trained)

    def restore(self, memory: Memory) -> None:
        """Continue from what `state` returned; the model must hold the averages again."""
        self._trained = list(memory.arrays)

    def on_test_begin(self, logs: Mapping[str, float] | None = None) -> None:  # noqa: D102
        weights = self.model.trainable_variables
        self._trained = [np.array(ops.convert_to_numpy(weight)) for weight in weights]
        self.model.optimizer.finalize_variable_values(weights)
        # copies: on JAX a weight would share its buffer with the optimizer's average, and validation gives it up
        for weight in weights:
            weight.assign(np.array(ops.convert_to_numpy(weight)))

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: D102
        for weight, trained in zip(self.model.trainable_variables, self._trained, strict=False):
            weight.assign(trained)
        self._trained = []
