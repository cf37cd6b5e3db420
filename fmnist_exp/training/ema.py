"""Weight averaging: the optimizer's exponential moving average of the weights, in the model wherever it is judged.

Only what is trained is averaged: batch norm's moving statistics stay those of the weights as the steps leave them.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def averaging() -> Any:
    """The Keras callback that puts the averages into the model for validation, until the next epoch's first step.

    What runs at an epoch's end, as early stopping, finds the averages there. Keras' own SwapEMAWeights exchanges the
    two by adding and subtracting, which changes the last bits of both.
    """
    from keras import ops
    from keras.callbacks import Callback

    class Averaging(Callback):
        def __init__(self) -> None:
            super().__init__()
            self.trained: list[Any] = []  # the weights that the steps go on from, while the averages stand in for them

        def on_test_begin(self, logs: Any = None) -> None:
            weights = self.model.trainable_variables
            self.trained = [np.array(ops.convert_to_numpy(weight)) for weight in weights]
            self.model.optimizer.finalize_variable_values(weights)
            # copies: on JAX a weight would share its buffer with the optimizer's average, and validation gives it up
            for weight in weights:
                weight.assign(np.array(ops.convert_to_numpy(weight)))

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            for weight, trained in zip(self.model.trainable_variables, self.trained, strict=False):
                weight.assign(trained)
            self.trained = []

    return Averaging()
