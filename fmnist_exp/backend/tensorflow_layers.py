"""Layers that TensorFlow computes faster than those of Keras, with the same weights and the same numbers."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

NARROW = 8  # pixels; the gradient by columns is faster for maps up to this width
STEP = [1, 1, 1, 1]  # strides of one pixel

Gradients = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization by one kernel: activations in their precision, scale and moments in float32.

    Keras computes moments, difference, product and sum one after another, with a copy of the maps in float32 in
    between. In bfloat16 this takes as long as the convolutions.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        """Normalise maps (B, H, W, C) or vectors (B, C)."""
        learning = bool(training) and self.trainable
        maps = inputs if len(inputs.shape) == 4 else tf.reshape(inputs, (-1, 1, 1, inputs.shape[-1]))
        mean, variance = (self.moving_mean, self.moving_variance)
        output, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=maps,  # (B, H, W, C)
            scale=self.gamma,
            offset=self.beta,
            mean=tf.zeros(0) if learning else mean,
            variance=tf.zeros(0) if learning else variance,
            epsilon=self.epsilon,
            is_training=learning,
        )
        if learning:
            count = tf.cast(tf.size(maps) // maps.shape[-1], tf.float32)
            batch_variance *= (count - 1) / count  # the kernel's variance is unbiased, that of Keras is not
            mean.assign(mean * self.momentum + batch_mean * (1 - self.momentum))
            variance.assign(variance * self.momentum + batch_variance * (1 - self.momentum))
        return output if len(inputs.shape) == 4 else tf.reshape(output, tf.shape(inputs))


class ColumnwiseConv2D(keras.layers.Conv2D):
    """A convolution that, on small maps in bfloat16, computes the gradient of its kernel column by column.

    TensorFlow's kernel for that gradient works along the rows of a map. With short rows, it is as slow in bfloat16 as
    in float32. Here a row holds one column's pixels of all images, which makes it long.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Convolve maps (B, H, W, C) with the kernel."""
        plain = self.padding == "same" and (self.groups, *self.strides, *self.dilation_rate) == (1, 1, 1, 1, 1)
        side, width = self.kernel_size[1], inputs.shape[2]
        if plain and inputs.dtype == "bfloat16" and side % 2 and 1 < side <= width <= NARROW:
            return _convolve(inputs, kernel)
        return super().convolution_op(inputs, kernel)


FASTER: dict[type[keras.layers.Layer], type[keras.layers.Layer]] = {
    keras.layers.BatchNormalization: FusedBatchNormalization,
    keras.layers.Conv2D: ColumnwiseConv2D,
}


def _convolve(maps: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolve maps (B, H, W, C) with a kernel (height, width, C, D) of odd width; returns (B, H, W, D)."""

    def convolve(maps: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        def gradients(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            maps_gradient = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(maps), filter=kernel, out_backprop=upstream, strides=STEP, padding="SAME"
            )
            return maps_gradient, kernel_gradient(maps, upstream, kernel.shape)

        return tf.nn.conv2d(maps, kernel, STEP, "SAME"), gradients

    kernel = tf.convert_to_tensor(kernel)  # from Keras' variable, in the precision of the maps
    return tf.custom_gradient(convolve)(maps, kernel)


def kernel_gradient(maps: tf.Tensor, upstream: tf.Tensor, shape: tuple[int, int, int, int]) -> tf.Tensor:
    """Return the gradient of a convolution's kernel, with `same` padding.

    `maps` is the convolution's input (B, H, W, C), `upstream` the gradient of its output (B, H, W, D), `shape` that of
    the kernel, (height, width, C, D). Each column of the kernel is computed by a separate convolution, one pixel wide,
    that takes the columns of the maps as images and the images as columns.
    """
    height, width, channels, filters = shape
    maps, upstream = (tf.transpose(tensor, (2, 1, 0, 3)) for tensor in (maps, upstream))  # (W, H, B, channels)
    columns = []
    for offset in range(-(width // 2), width // 2 + 1):
        before, after = max(0, -offset), max(0, offset)
        columns.append(
            tf.raw_ops.Conv2DBackpropFilter(
                input=maps[after : maps.shape[0] - before],
                filter_sizes=[height, 1, channels, filters],
                out_backprop=upstream[before : upstream.shape[0] - after],
                strides=STEP,
                padding="SAME",
            )
        )
    return tf.concat(columns, axis=1)
