"""What the families are made of: lists of stock Keras layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fmnist_exp.config.schema import ModelConfig

PIXEL_MEAN, PIXEL_DEVIATION = 0.286, 0.353  # of the training images, scaled to 0…1
BATCH_NORM_MOMENTUM = 0.9  # Keras' 0.99 lags behind in runs of a few epochs


def scaled() -> list[Any]:
    """From pixels 0…255 to the training images' mean 0 and deviation 1."""
    from keras import layers

    return [layers.Rescaling(1 / (255 * PIXEL_DEVIATION), offset=-PIXEL_MEAN / PIXEL_DEVIATION)]


def halved(maps: Any) -> list[Any]:
    """Max pooling, as long as the maps have more than one pixel a side."""
    from keras import layers

    return [layers.MaxPooling2D()] if maps.shape[1] > 1 else []


def dropped(rate: float) -> list[Any]:
    """Dropout, if there is any."""
    from keras import layers

    return [layers.Dropout(rate)] if rate else []


def activated(
    layer: Callable[..., Any],
    config: ModelConfig,
    before_activation: Sequence[Any] = (),
    norm: bool = True,
    **shape: Any,
) -> list[Any]:
    """A dense layer or convolution, then `before_activation`, its normalisation and its activation."""
    from keras import layers

    weights, *normalisation = weighted(layer, config, norm, **shape)
    activation = layers.Activation(config.activation)
    if config.norm_position == "after_activation":
        return [weights, *before_activation, activation, *normalisation]
    return [weights, *before_activation, *normalisation, activation]


def weighted(layer: Callable[..., Any], config: ModelConfig, norm: bool = True, **shape: Any) -> list[Any]:
    """A dense layer or convolution and its normalisation."""
    from keras import layers, regularizers

    norm = norm and config.batch_norm
    # batch norm has an offset of its own, unless an activation stands between
    options: dict[str, Any] = {"use_bias": not norm or config.norm_position == "after_activation", **shape}
    if layer is layers.DepthwiseConv2D:  # nine weights each: a penalty would only starve them (Howard et al. 2017)
        options["depthwise_initializer"] = "he_normal"
    else:
        options["kernel_initializer"] = "he_normal"
        options["kernel_regularizer"] = regularizers.L2(config.l2) if config.l2 else None
    return [layer(**options), *([layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)] if norm else [])]


def through(stack: Sequence[Any], x: Any) -> Any:
    """`x` after the layers of `stack`, one after another."""
    for layer in stack:
        x = layer(x)
    return x


def output(config: ModelConfig) -> Any:
    """The softmax over the ten classes, in float32."""
    from keras import layers, regularizers

    penalty = regularizers.L2(config.l2) if config.l2 else None
    return layers.Dense(10, activation="softmax", dtype="float32", kernel_regularizer=penalty)
