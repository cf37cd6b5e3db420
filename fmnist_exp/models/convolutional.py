"""Families of convolutions: cnn, resnet, mobilenet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fmnist_exp.config.schema import ModelConfig
from fmnist_exp.errors import RequestError
from fmnist_exp.models.blocks import activated, dropped, halved, output, scaled, through, weighted

if TYPE_CHECKING:
    import keras


def cnn(config: ModelConfig) -> keras.Model:
    """Blocks of convolutions, each halving the maps, then dense layers.

    With `pool_first` a block pools after its first convolution and normalises and activates what is left: the same
    network for a quarter of the work on the large maps. With `residual` each later convolution adds its input to its
    output (He et al. 2015). `pooling` makes the last maps a vector.
    """
    from keras import layers

    inputs, x = _image(config)
    blocks = zip(config.widths, config.convolutions_per_block(), config.dropouts(), strict=True)
    for block, (filters, convolutions, dropout) in enumerate(blocks):
        for position in range(convolutions):
            stride = config.stem_stride if block == position == 0 else 1
            shape: dict[str, Any] = {"filters": filters, "kernel_size": config.kernel_size, "strides": stride}
            pool = halved(x) if config.pool_first and position == 0 else []
            norm = position == 0 or not config.norm_first_only
            y = through(activated(layers.Conv2D, config, pool, norm, **shape, padding=config.padding), x)
            x = layers.Add()([y, x]) if config.residual and position > 0 else y
        x = through([*([] if config.pool_first else halved(x)), *dropped(dropout)], x)
    return _headed(config, inputs, x)


def resnet(config: ModelConfig) -> keras.Model:
    """A residual network (He et al. 2015): a stem, then stages of `convolutions` blocks of two convolutions each.

    Every stage but the first halves the maps with the stride of its first block, whose shortcut is a 1×1 convolution.
    """
    from keras import layers

    inputs, x = _stem(config)
    stages = zip(config.widths, config.convolutions_per_block(), config.dropouts(), strict=True)
    for stage, (filters, blocks, dropout) in enumerate(stages):
        for position in range(blocks):
            stride = 2 if stage > 0 and position == 0 else 1
            shape: dict[str, Any] = {"filters": filters, "kernel_size": config.kernel_size, "padding": "same"}
            y = through(activated(layers.Conv2D, config, **shape, strides=stride), x)
            y = through(weighted(layers.Conv2D, config, **shape), y)
            if stride > 1 or x.shape[-1] != filters:
                x = through(weighted(layers.Conv2D, config, filters=filters, kernel_size=1, strides=stride), x)
            x = layers.Activation(config.activation)(layers.Add()([y, x]))
        x = through(dropped(dropout), x)
    return _headed(config, inputs, x)


def mobilenet(config: ModelConfig) -> keras.Model:
    """Depthwise-separable convolutions (Howard et al. 2017): a stem, then stages of `convolutions` of them each.

    Every stage but the first halves the maps with the stride of its first one. With `residual` each later one adds its
    input to its output.
    """
    from keras import layers

    inputs, x = _stem(config)
    stages = zip(config.widths, config.convolutions_per_block(), config.dropouts(), strict=True)
    for stage, (filters, convolutions, dropout) in enumerate(stages):
        for position in range(convolutions):
            stride = 2 if stage > 0 and position == 0 else 1
            depthwise: dict[str, Any] = {"kernel_size": config.kernel_size, "strides": stride, "padding": "same"}
            y = through(activated(layers.DepthwiseConv2D, config, **depthwise), x)
            y = through(activated(layers.Conv2D, config, filters=filters, kernel_size=1), y)
            x = layers.Add()([y, x]) if config.residual and position > 0 else y
        x = through(dropped(dropout), x)
    return _headed(config, inputs, x)


def check_maps(config: ModelConfig) -> None:
    """Refuse blocks for which `valid` padding leaves no pixel."""
    side = 28
    for block, convolutions in enumerate(config.convolutions_per_block()):
        for position in range(convolutions if config.padding == "valid" else 0):
            stride = config.stem_stride if block == position == 0 else 1
            side = (side - config.kernel_size) // stride + 1
            if side < 1:
                raise RequestError(
                    f"model.padding=valid: nothing is left of the maps in block {block + 1} of {len(config.widths)};"
                    " take fewer model.widths, or padding=same"
                )
            side = side // 2 if config.pool_first and position == 0 and side > 1 else side
        side = side // 2 if not config.pool_first and side > 1 else side


def _image(config: ModelConfig) -> tuple[Any, Any]:
    """The input, and the scaled image as maps (B, 28, 28, 1)."""
    from keras import Input, layers

    inputs = Input((28, 28), dtype="uint8")
    return inputs, through([*scaled(), layers.Reshape((28, 28, 1))], inputs)


def _stem(config: ModelConfig) -> tuple[Any, Any]:
    """The input, and the maps after a first convolution of `widths[0]` filters."""
    from keras import layers

    inputs, x = _image(config)
    shape: dict[str, Any] = {"kernel_size": config.kernel_size, "strides": config.stem_stride, "padding": "same"}
    return inputs, through(activated(layers.Conv2D, config, filters=config.widths[0], **shape), x)


def _headed(config: ModelConfig, inputs: Any, x: Any) -> keras.Model:
    """The model from `inputs` over the maps `x` to probabilities."""
    from keras import Model, layers

    x = (layers.Flatten() if config.pooling == "flatten" else layers.GlobalAveragePooling2D())(x)
    for width in config.head_widths:
        x = through(activated(layers.Dense, config, norm=config.head_batch_norm, units=width), x)
    return Model(inputs, through([*dropped(config.head_dropout), output(config)], x), name=config.family)
