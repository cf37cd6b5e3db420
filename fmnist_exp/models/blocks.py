"""The building blocks of the families: short lists of stock Keras layers, which `apply` calls one after another."""

from collections.abc import Callable, Mapping, Sequence

from keras import KerasTensor, Layer, layers, regularizers

from fmnist_exp.config.schema import ModelConfig

PIXEL_MEAN, PIXEL_DEVIATION = 0.286, 0.353  # of the training images, scaled to 0…1
Kind = Callable[..., Layer]  # the class of a dense layer or convolution
Shape = Mapping[str, int | str]  # arguments of a layer, such as its units or its filters
BATCH_NORM_MOMENTUM = 0.9  # Keras' default of 0.99 lags behind in runs of a few epochs


def rescaling() -> list[Layer]:
    """Return the layer that gives pixels 0…255 the mean 0 and the standard deviation 1 over the training images."""
    return [layers.Rescaling(1 / (255 * PIXEL_DEVIATION), offset=-PIXEL_MEAN / PIXEL_DEVIATION)]


def pool(maps: KerasTensor) -> list[Layer]:
    """Return a max pooling that halves the sides of `maps` (B, H, W, C), or nothing if they have a single pixel."""
    return [layers.MaxPooling2D()] if maps.shape[1] > 1 else []


def dropout(rate: float) -> list[Layer]:
    """Return a dropout layer, or nothing if `rate` is 0."""
    return [layers.Dropout(rate)] if rate else []


def with_activation(
    layer: Kind, config: ModelConfig, shape: Shape, pooling: Sequence[Layer] = (), norm: bool = True
) -> list[Layer]:
    """Return a list of layers: dense or convolution, `pooling`, normalisation and activation, in the configured order.

    With `norm` False there is no normalisation, even if `config.batch_norm` is on.
    """
    weights, *normalisation = with_norm(layer, config, shape, norm)
    activation = layers.Activation(config.activation)
    if config.norm_position == "after_activation":
        return [weights, *pooling, activation, *normalisation]
    return [weights, *pooling, *normalisation, activation]


def with_norm(layer: Kind, config: ModelConfig, shape: Shape, norm: bool = True) -> list[Layer]:
    """Return a dense layer or convolution, followed by its batch normalisation if there is one."""
    norm = norm and config.batch_norm
    # batch normalisation adds an offset of its own, unless an activation lies between
    options: dict[str, object] = {"use_bias": not norm or config.norm_position == "after_activation", **shape}
    if layer is layers.DepthwiseConv2D:  # without L2, since a kernel has only nine weights (Howard et al. 2017)
        options["depthwise_initializer"] = "he_normal"
    else:
        options["kernel_initializer"] = "he_normal"
        options["kernel_regularizer"] = regularizers.L2(config.l2) if config.l2 else None
    return [layer(**options), *([layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM)] if norm else [])]


def apply(stack: Sequence[Layer], x: KerasTensor) -> KerasTensor:
    """Return `x` after the layers of `stack`, called one after another."""
    for layer in stack:
        x = layer(x)
    return x


def output(config: ModelConfig) -> Layer:
    """Return the softmax layer over the ten classes, which computes in float32 at any precision."""
    penalty = regularizers.L2(config.l2) if config.l2 else None
    return layers.Dense(10, activation="softmax", dtype="float32", kernel_regularizer=penalty)
