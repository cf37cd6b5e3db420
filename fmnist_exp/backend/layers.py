"""Layers that TensorFlow computes faster than Keras' own do, with the same weights and the same numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fmnist_exp.backend.setup import on_tensorflow

if TYPE_CHECKING:
    import keras


NARROW = 8  # pixels; the widest maps for which the gradient by columns is faster


@functools.cache
def kinds() -> dict[type[keras.layers.Layer], type[keras.layers.Layer]]:
    """Each layer of Keras' that has a faster one, and that one."""
    import keras

    return {
        keras.layers.BatchNormalization: _fused_batch_normalization(),
        keras.layers.Conv2D: _convolution_with_kernel_gradient_by_columns(),
    }


def _fused_batch_normalization() -> type[keras.layers.BatchNormalization]:
    import keras
    import tensorflow as tf

    class FusedBatchNormalization(keras.layers.BatchNormalization):
        """Keras' own, computed by one kernel: activations in their precision, scale and moments in float32.

        Keras computes moments, difference, product and sum one after another, with a copy of the maps in float32
        between them; in bfloat16 that takes as long as the convolutions.
        """

        def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
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
                batch_variance *= (count - 1) / count  # the kernel's is unbiased, Keras' is not
                mean.assign(mean * self.momentum + batch_mean * (1 - self.momentum))
                variance.assign(variance * self.momentum + batch_variance * (1 - self.momentum))
            return output if len(inputs.shape) == 4 else tf.reshape(output, tf.shape(inputs))

    return FusedBatchNormalization


def _convolution_with_kernel_gradient_by_columns() -> type[keras.layers.Conv2D]:
    import keras

    class ColumnwiseConv2D(keras.layers.Conv2D):
        """Keras' own; on small maps in bfloat16 the gradient of its kernel is taken column by column.

        TensorFlow's kernel for that gradient works along the rows of a map, and in bfloat16 it is as slow as in float32
        where they are short. With a column's pixels of all images side by side they are long.
        """

        def convolution_op(self, inputs: Any, kernel: Any) -> Any:
            plain = self.padding == "same" and (self.groups, *self.strides, *self.dilation_rate) == (1, 1, 1, 1, 1)
            side, width = self.kernel_size[1], inputs.shape[2]
            if plain and inputs.dtype == "bfloat16" and side % 2 and 1 < side <= width <= NARROW:
                return _convolved(inputs, kernel)
            return super().convolution_op(inputs, kernel)

    return ColumnwiseConv2D


def _convolved(maps: Any, kernel: Any) -> Any:
    """Maps (B, H, W, C) convolved with a kernel (height, width, C, D), width odd: (B, H, W, D)."""
    import tensorflow as tf

    ones = [1, 1, 1, 1]

    def convolve(maps: Any, kernel: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
        def gradients(upstream: Any) -> tuple[Any, Any]:
            of_maps = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(maps), filter=kernel, out_backprop=upstream, strides=ones, padding="SAME"
            )
            return of_maps, kernel_gradient(maps, upstream, kernel.shape)

        return tf.nn.conv2d(maps, kernel, ones, "SAME"), gradients

    kernel = tf.convert_to_tensor(kernel)  # of Keras' variable, in the precision of the maps
    return tf.custom_gradient(convolve)(maps, kernel)


def kernel_gradient(maps: Any, upstream: Any, shape: tuple[int, int, int, int]) -> Any:
    """The gradient of a kernel of `shape` (height, width, C, D) that meets `maps` (B, H, W, C), with `same` padding.

    `upstream` (B, H, W, D) is the gradient of the result. Each column of the kernel is a convolution of its own, one
    pixel wide, for which the columns of the maps count as images and the images as columns.
    """
    import tensorflow as tf

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
                strides=[1, 1, 1, 1],
                padding="SAME",
            )
        )
    return tf.concat(columns, axis=1)


def accelerate(model: keras.Model) -> keras.Model:
    """The same network for fitting, with fresh weights and TensorFlow's own layers where those are faster than Keras'.

    Weights have the same order and shapes, so that they go over with `set_weights`. On other Keras backends, or
    without such layers, it is `model` itself.
    """
    import keras

    if not on_tensorflow():
        return model
    fast = kinds()
    if not any(type(layer) in fast for layer in model.layers):
        return model

    def clone(layer: Any) -> Any:
        return fast.get(type(layer), type(layer)).from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=clone)
