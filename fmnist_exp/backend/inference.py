"""Compiled functions from images to a model's probabilities."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from fmnist_exp.backend.setup import on_tensorflow

BATCH = 250  # images predicted at a time; of each, an averaged network holds the maps of up to six views


def predict(model: keras.Model, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Probabilities (N, 10) for uint8 images (N, 28, 28)."""
    answer = answering(model)
    return np.concatenate([answer(images[start : start + BATCH]) for start in range(0, len(images), BATCH)])


def graph(
    function: Callable[..., Any], inputs: Mapping[str, tuple[Sequence[int | None], Any]]
) -> tuple[Any, list[Any]]:
    """TensorFlow's graph function for `function` of tensors, and its signature; `inputs` by name, shape and dtype."""
    import tensorflow as tf  # late: with KERAS_BACKEND=jax it need not be installed

    signature = [tf.TensorSpec(shape, dtype, name) for name, (shape, dtype) in inputs.items()]
    return tf.function(function, input_signature=signature, autograph=False), signature


def answering(model: keras.Model) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """A function from images (B, 28, 28) to the model's probabilities (B, 10), compiled by its first call.

    Keras' `predict` builds a data set around the same graph, which takes 0.1 s and slows large batches down.
    """
    if not on_tensorflow():
        return lambda images: np.asarray(model.predict_on_batch(images))
    compiled, _ = graph(functools.partial(model, training=False), {"images": ((None, 28, 28), np.uint8)})
    return lambda images: np.asarray(compiled(images))
