"""Seed all random numbers and clear the process of earlier models, so that a fit is repeatable."""

import gc
import random

import keras
import numpy as np

from fmnist_exp import compat
from fmnist_exp.backend.setup import on_tensorflow, set_precision, start

LIBRARY_OBJECTS = 20_000  # Python objects that survive a collection: more than a network and its fit leave


def prepare(seed: int, precision: str) -> None:
    """Make the next fit repeatable: seed Python, NumPy and Keras, forget earlier models, set the precision.

    The same seed gives the same numbers on the same machine with the same number of threads, for certain only with one
    thread (docs/how-to/reproduce-a-run.md). Operations that TensorFlow can only run in an unrepeatable order raise an
    error instead. Layers built from now on compute in `precision`, float32 or bfloat16.
    """
    start()
    _forget_gradients()
    keras.backend.clear_session()
    _freeze_libraries()
    random.seed(seed)  # not by keras.utils.set_random_seed, which imports TensorFlow for any backend
    np.random.seed(seed)
    # Python's global generator, which Keras uses by default, is used by other threads of a worker too: by Dask's for
    # every message that it sends, by MLflow's and Optuna's when they retry. A trial's weights would depend on them.
    compat.seed_keras(seed)
    set_precision(precision)
    if on_tensorflow():
        import tensorflow as tf  # late: with KERAS_BACKEND=jax it need not be installed

        tf.random.set_seed(seed)
        tf.config.experimental.enable_op_determinism()


def _forget_gradients() -> None:
    """Delete the entries that `tf.custom_gradient` registered for earlier fits.

    Optimizers use it, and each entry keeps the graph of its fit alive (tensorflow/tensorflow#97697).
    """
    if on_tensorflow():
        gradients = compat.tensorflow_gradients()
        for name in [name for name in gradients if name.startswith("CustomGradient-")]:
            del gradients[name]


def _freeze_libraries() -> None:
    """Exclude the objects that survived the last garbage collection from later collections, if there are many.

    Most of them belong to the modules of TensorFlow, MLflow and others. Scanning them took 0.4 s, several times in each
    trial.
    """
    if len(gc.get_objects()) > LIBRARY_OBJECTS:
        gc.freeze()
