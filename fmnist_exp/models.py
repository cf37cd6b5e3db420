"""The model families: MODELS maps a name to the function that builds it. Pure Keras 3, stock layers only.

Every model takes uint8 images (batch, 28, 28) and returns probabilities (batch, 10), so whatever it needs of scaling
travels with it. Keras is imported inside the builders: a wrong argument must not wait for it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fmnist_exp.config import ModelConfig
from fmnist_exp.errors import RequestError

if TYPE_CHECKING:
    import keras

Builder = Callable[[ModelConfig], "keras.Model"]

PIXEL_MEAN, PIXEL_DEVIATION = 0.286, 0.353  # of the training images, scaled to 0…1
BATCH_NORM_MOMENTUM = 0.9  # Keras' 0.99 lags behind in runs of a few epochs


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

    return _model([*_scaled(), layers.Flatten(), _output(config)])


def mlp(config: ModelConfig) -> keras.Model:
    """Dense layers of `widths` units, each followed by its dropout."""
    from keras import layers

    stack = [*_scaled(), layers.Flatten()]
    for width, dropout in zip(config.widths, config.dropouts(), strict=True):
        stack += _activated(layers.Dense, config, units=width)
        stack += _dropout(dropout)
    return _model([*stack, _output(config)])


def cnn(config: ModelConfig) -> keras.Model:
    """Blocks of convolutions, each halving the maps, then dense layers.

    With `pool_first` a block pools after its first convolution and normalises and activates what is left: the same
    network for a quarter of the work on the large maps. With `residual` each later convolution adds its input to its
    output (He et al. 2015). `pooling` makes the last maps a vector.
    """
    from keras import Input, Model, layers

    inputs = Input((28, 28), dtype="uint8")
    x = _through([*_scaled(), layers.Reshape((28, 28, 1))], inputs)  # (B, 28, 28, 1)
    blocks = zip(config.widths, config.convolutions_per_block(), config.dropouts(), strict=True)
    for block, (filters, convolutions, dropout) in enumerate(blocks):
        for position in range(convolutions):
            stride = config.stem_stride if block == position == 0 else 1
            shape = {"filters": filters, "kernel_size": config.kernel_size, "strides": stride, "padding": "same"}
            pool = _halved(x) if config.pool_first and position == 0 else []
            y = _through(_activated(layers.Conv2D, config, before_activation=pool, **shape), x)
            x = layers.Add()([y, x]) if config.residual and position > 0 else y
        x = _through([*([] if config.pool_first else _halved(x)), *_dropout(dropout)], x)
    x = (layers.Flatten() if config.pooling == "flatten" else layers.GlobalAveragePooling2D())(x)
    for width in config.head_widths:
        x = _through(_activated(layers.Dense, config, units=width), x)
    return Model(inputs, _through([*_dropout(config.head_dropout), _output(config)], x), name="cnn")


MODELS: dict[str, Builder] = {"naive": naive, "linear": linear, "mlp": mlp, "cnn": cnn}


def check(config: ModelConfig) -> None:
    """Raise RequestError for a family that is not in the registry."""
    if config.family not in MODELS:
        near = difflib.get_close_matches(config.family, MODELS, n=1, cutoff=0.0)[0]
        raise RequestError(
            f"model.family={config.family!r}: must be one of {', '.join(MODELS)}; did you mean {near!r}?"
        )


def build(config: ModelConfig) -> keras.Model:
    """Build the model that `config` describes, with fresh weights.

    Returns:
        Takes uint8 images (batch, 28, 28), returns float32 probabilities (batch, 10).

    Raises:
        RequestError: the family is not in the registry.
    """
    check(config)
    return MODELS[config.family](config)


def _model(stack: list[Any]) -> keras.Model:
    import keras

    return keras.Sequential([keras.Input((28, 28), dtype="uint8"), *stack])


def _scaled() -> list[Any]:
    from keras import layers

    return [layers.Rescaling(1 / (255 * PIXEL_DEVIATION), offset=-PIXEL_MEAN / PIXEL_DEVIATION)]


def _halved(maps: Any) -> list[Any]:
    """Max pooling, as long as the maps have more than one pixel a side."""
    from keras import layers

    return [layers.MaxPooling2D()] if maps.shape[1] > 1 else []


def _dropout(rate: float) -> list[Any]:
    from keras import layers

    return [layers.Dropout(rate)] if rate else []


def _activated(
    layer: Callable[..., Any], config: ModelConfig, before_activation: Sequence[Any] = (), **shape: Any
) -> list[Any]:
    """A dense layer or convolution, then `before_activation`, its normalisation and its activation."""
    from keras import layers, regularizers

    penalty = regularizers.L2(config.l2) if config.l2 else None
    # batch norm has an offset of its own
    weights = layer(**shape, use_bias=not config.batch_norm, kernel_initializer="he_normal", kernel_regularizer=penalty)
    normalisation = [layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)] if config.batch_norm else []
    return [weights, *before_activation, *normalisation, layers.Activation(config.activation)]


def _through(stack: Sequence[Any], x: Any) -> Any:
    """`x` after the layers of `stack`, one after another."""
    for layer in stack:
        x = layer(x)
    return x


def _output(config: ModelConfig) -> Any:
    from keras import layers, regularizers

    penalty = regularizers.L2(config.l2) if config.l2 else None
    return layers.Dense(10, activation="softmax", dtype="float32", kernel_regularizer=penalty)


def describe(model: keras.Model) -> list[tuple[str, str, int]]:
    """Each layer as (description, output shape, parameters), the input first."""
    rows = [("Input", "28 × 28 uint8", 0)]
    for layer in model.layers:
        details = [str(getattr(layer, name)) for name in ("filters", "units", "rate") if hasattr(layer, name)]
        if hasattr(layer, "kernel_size"):
            details.append("×".join(map(str, layer.kernel_size)))
        if getattr(getattr(layer, "activation", None), "__name__", "linear") != "linear":
            details.append(layer.activation.__name__)
        shape = " × ".join(map(str, layer.output.shape[1:]))
        rows.append((" ".join([type(layer).__name__, *details]), shape, layer.count_params()))
    return rows
