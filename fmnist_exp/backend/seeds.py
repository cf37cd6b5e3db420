"""Seeds and a clean process: what makes a fit repeatable."""

from __future__ import annotations

import gc
import random

import keras

from fmnist_exp.backend.setup import on_tensorflow, set_precision, start

LIBRARY_OBJECTS = 20_000  # of Python, that survive: more than a network and its fit leave


def prepare(seed: int, precision: str) -> None:
    """Make what follows repeatable: seed Python, NumPy and Keras, forget earlier models, set the precision.

    The same seed gives the same numbers on the same machine; ops that TensorFlow can only run in an unrepeatable
    order raise an error instead.
    """
    start()
    _forget_gradients()
    keras.backend.clear_session()
    _freeze_libraries()
    keras.utils.set_random_seed(seed)
    _draw_alone(seed)
    set_precision(precision)
    if on_tensorflow():
        import tensorflow as tf  # late: with KERAS_BACKEND=jax it need not be installed

        tf.config.experimental.enable_op_determinism()


def _draw_alone(seed: int) -> None:
    """Have Keras draw the seeds of weights and dropout from a generator of its own.

    By itself it takes Python's global one, from which a worker's other threads draw too: Dask's for every message that
    it sends, MLflow and Optuna when they try again. A trial's weights depended on when they did.
    """
    from keras.src.random import seed_generator

    seed_generator.python_random = random.Random(seed)


def _forget_gradients() -> None:
    """Drop what `tf.custom_gradient` registered for earlier fits.

    Their optimizers use it, and each entry keeps the graph of its fit alive (tensorflow/tensorflow#97697).
    """
    if on_tensorflow():
        from tensorflow.python.framework import ops

        registered = ops.gradient_registry._registry
        for name in [name for name in registered if name.startswith("CustomGradient-")]:
            del registered[name]


def _freeze_libraries() -> None:
    """Take what survived the collection in `clear_session` out of all later ones, if it is much.

    That is the modules of TensorFlow, MLflow and others: to look through them took 0.4 s, several times a trial.
    """
    if len(gc.get_objects()) > LIBRARY_OBJECTS:
        gc.freeze()
