"""The convolutional families: cnn, resnet and mobilenet. Feature maps have the shape (B, H, W, channels)."""

import keras
from keras import KerasTensor, layers

from fmnist_exp.config.schema import ModelConfig
from fmnist_exp.models.blocks import Shape, apply, dropout, output, pool, rescaling, with_activation, with_norm


def cnn(config: ModelConfig) -> keras.Model:
    """Build blocks of convolutions, each of which halves the maps, and dense layers behind them.

    With `pool_first` a block pools after its first convolution, before normalisation and activation: a network with as
    many parameters that does a quarter of the work on the large maps. With `residual` each later convolution adds its
    input to its output (He et al. 2015). `pooling` turns the last maps into a vector.
    """
    inputs, x = _input_maps()
    blocks = zip(config.widths, config.convolutions_per_block(), config.dropouts(), strict=True)
    for block, (filters, convolutions, rate) in enumerate(blocks):
        for position in range(convolutions):
            stride = config.stem_stride if block == position == 0 else 1
            shape = _shape(config, filters, stride, config.padding)
            pooling = pool(x) if config.pool_first and position == 0 else []
            norm = position == 0 or not config.norm_first_only
            y = apply(with_activation(layers.Conv2D, config, shape, pooling, norm), x)
            x = layers.Add()([y, x]) if config.residual and position > 0 else y
        x = apply([*([] if config.pool_first else pool(x)), *dropout(rate)], x)  # (B, H/2, W/2, filters)
    return _with_head(config, inputs, x)


def resnet(config: ModelConfig) -> keras.Model:
    """Build a residual network (He et al. 2015): a stem, then stages of `convolutions` blocks of two convolutions each.

    Every stage but the first halves the maps with the stride of its first block. Where the shape of the maps changes,
    the shortcut is a 1×1 convolution.
    """
    inputs, x = _stem(config)
    stages = zip(config.widths, config.convolutions_per_block(), config.dropouts(), strict=True)
    for stage, (filters, blocks, rate) in enumerate(stages):
        for position in range(blocks):
            stride = 2 if stage > 0 and position == 0 else 1
            first = with_activation(layers.Conv2D, config, _shape(config, filters, stride))
            second = with_norm(layers.Conv2D, config, _shape(config, filters))
            y = apply([*first, *second], x)  # (B, H/stride, W/stride, filters)
            if stride > 1 or x.shape[-1] != filters:
                shortcut: Shape = {"filters": filters, "kernel_size": 1, "strides": stride}
                x = apply(with_norm(layers.Conv2D, config, shortcut), x)
            x = layers.Activation(config.activation)(layers.Add()([y, x]))
        x = apply(dropout(rate), x)
    return _with_head(config, inputs, x)


def mobilenet(config: ModelConfig) -> keras.Model:
    """Build depthwise-separable convolutions (Howard et al. 2017): a stem, then stages of `convolutions` of them each.

    Every stage but the first halves the maps with the stride of its first convolution. With `residual` each later one
    adds its input to its output.
    """
    inputs, x = _stem(config)
    stages = zip(config.widths, config.convolutions_per_block(), config.dropouts(), strict=True)
    for stage, (filters, convolutions, rate) in enumerate(stages):
        for position in range(convolutions):
            stride = 2 if stage > 0 and position == 0 else 1
            depthwise: Shape = {"kernel_size": config.kernel_size, "strides": stride, "padding": "same"}
            y = apply(with_activation(layers.DepthwiseConv2D, config, depthwise), x)  # (B, H/stride, W/stride, C)
            y = apply(with_activation(layers.Conv2D, config, {"filters": filters, "kernel_size": 1}), y)  # (…, filters)
            x = layers.Add()([y, x]) if config.residual and position > 0 else y
        x = apply(dropout(rate), x)
    return _with_head(config, inputs, x)


def _input_maps() -> tuple[KerasTensor, KerasTensor]:
    """Return the input (B, 28, 28) and the rescaled image as maps (B, 28, 28, 1)."""
    inputs = keras.Input((28, 28), dtype="uint8")
    return inputs, apply([*rescaling(), layers.Reshape((28, 28, 1))], inputs)


def _stem(config: ModelConfig) -> tuple[KerasTensor, KerasTensor]:
    """Return the input (B, 28, 28) and the maps (B, H, W, widths[0]) after a first convolution."""
    inputs, x = _input_maps()
    shape = _shape(config, config.widths[0], config.stem_stride)
    return inputs, apply(with_activation(layers.Conv2D, config, shape), x)


def _shape(config: ModelConfig, filters: int, strides: int = 1, padding: str = "same") -> Shape:
    return {"filters": filters, "kernel_size": config.kernel_size, "strides": strides, "padding": padding}


def _with_head(config: ModelConfig, inputs: KerasTensor, x: KerasTensor) -> keras.Model:
    """Return the model from `inputs` through the maps `x` and the dense layers of the head to probabilities (B, 10)."""
    x = (layers.Flatten() if config.pooling == "flatten" else layers.GlobalAveragePooling2D())(x)  # (B, features)
    for width in config.head_widths:
        x = apply(with_activation(layers.Dense, config, {"units": width}, norm=config.head_batch_norm), x)  # (B, width)
    return keras.Model(inputs, apply([*dropout(config.head_dropout), output(config)], x), name=config.family)
