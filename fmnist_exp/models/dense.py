"""Families without convolutions: naive, linear, mlp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fmnist_exp.config.schema import ModelConfig
from fmnist_exp.models.blocks import activated, dropped, output, scaled

if TYPE_CHECKING:
    import keras


def naive(config: ModelConfig) -> keras.Model:
    """The guess without looking: every class has the probability 1/10. No parameters, nothing to train."""
    from keras import layers

    return _model(
        [
            layers.Flatten(),  # (B, 784)
            layers.Reshape((784, 1)),
            layers.Cropping1D((0, 774)),  # (B, 10, 1)
            layers.Rescaling(0.0, offset=0.1),
            layers.Reshape((10,), dtype="float32"),  # (B, 10)
        ]
    )


def linear(config: ModelConfig) -> keras.Model:
    """One dense softmax on the pixels: logistic regression, the smallest model that looks at the image."""
    from keras import layers

    return _model([*scaled(), layers.Flatten(), output(config)])


def mlp(config: ModelConfig) -> keras.Model:
    """Dense layers of `widths` units, each followed by its dropout."""
    from keras import layers

    stack = [*scaled(), layers.Flatten()]
    for width, dropout in zip(config.widths, config.dropouts(), strict=True):
        stack += activated(layers.Dense, config, units=width)
        stack += dropped(dropout)
    return _model([*stack, output(config)])


def _model(stack: list[Any]) -> keras.Model:
    import keras

    return keras.Sequential([keras.Input((28, 28), dtype="uint8"), *stack])
