"""Compute a model's probabilities for images with compiled functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np
from numpy.typing import DTypeLike, NDArray

from fmnist_exp.backend.setup import on_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

BATCH = 250  # images predicted at a time, since an averaged network holds the maps of up to six views of each


def predict(model: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return a model's probabilities (N, 10) for images (N, 28, 28)."""
    compiled = compiled_model(model)
    return np.concatenate([compiled(images[start : start + BATCH]) for start in range(0, len(images), BATCH)])


def compiled_model(model: keras.Model) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """Return a function from images (B, 28, 28) to the model's probabilities (B, 10); its first call compiles it.

    Keras' `predict` builds a data set around the same graph, which takes 0.1 s and slows large batches down.
    """
    if not on_tensorflow():
        return lambda images: np.asarray(model.predict_on_batch(images))
    inputs = {"images": ((None, 28, 28), np.uint8)}
    compiled, _ = tensorflow_function(functools.partial(model, training=False), inputs)
    return lambda images: np.asarray(compiled(images))


def tensorflow_function(
    function: Callable[..., tf.Tensor], inputs: Mapping[str, tuple[Sequence[int | None], DTypeLike]]
) -> tuple[tf.types.experimental.PolymorphicFunction, list[tf.TensorSpec]]:
    """Return `function` as a TensorFlow graph, and its signature; `inputs` has the arguments' shapes and types."""
    import tensorflow as tf  # late: with KERAS_BACKEND=jax it need not be installed

    signature = [tf.TensorSpec(shape, dtype, name) for name, (shape, dtype) in inputs.items()]
    return tf.function(function, input_signature=signature, autograph=False), signature
