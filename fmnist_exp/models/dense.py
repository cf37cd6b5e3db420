"""The families without convolutions: naive, linear and mlp."""

import keras
from keras import layers

from fmnist_exp.config.schema import ModelConfig
from fmnist_exp.models.blocks import dropout, output, rescaling, with_activation


def naive(config: ModelConfig) -> keras.Model:
    """Build the naive guess: every class gets the probability 1/10. It has no parameters and needs no training."""
    return _sequential(
        [
            layers.Flatten(),  # (B, 784)
            layers.Reshape((784, 1)),  # (B, 784, 1)
            layers.Cropping1D((0, 774)),  # (B, 10, 1)
            layers.Rescaling(0.0, offset=0.1),  # (B, 10, 1)
            layers.Reshape((10,), dtype="float32"),  # (B, 10)
        ]
    )


def linear(config: ModelConfig) -> keras.Model:
    """Build a softmax layer on the pixels: logistic regression, the smallest model that uses the image."""
    return _sequential([*rescaling(), layers.Flatten(), output(config)])


def mlp(config: ModelConfig) -> keras.Model:
    """Build dense layers of `widths` units, each followed by its dropout."""
    stack = [*rescaling(), layers.Flatten()]  # (B, 784)
    for width, rate in zip(config.widths, config.dropouts(), strict=True):
        stack += with_activation(layers.Dense, config, {"units": width})  # (B, width)
        stack += dropout(rate)
    return _sequential([*stack, output(config)])  # (B, 10)


def _sequential(stack: list[keras.Layer]) -> keras.Model:
    return keras.Sequential([keras.Input((28, 28), dtype="uint8"), *stack])
