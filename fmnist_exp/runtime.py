"""Seeds, threads, precision and fast layers of this process. Only it and fast_layers.py import tensorflow."""

from __future__ import annotations

import functools
import gc
import importlib.util
import logging
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fmnist_exp import fast_layers
from fmnist_exp.errors import RequestError

if TYPE_CHECKING:
    import keras
    import numpy as np
    from numpy.typing import NDArray

BACKENDS = ("tensorflow", "jax")
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # precision → Keras' name for it
LIBRARY_OBJECTS = 20_000  # of Python, that survive: more than a network and its fit leave

_threads: int | None = None  # of the backend; None: one per core


def limit_threads(count: int) -> None:
    """Have TensorFlow or JAX compute with `count` threads. Without effect once it has started."""
    global _threads
    _threads = count


def check_backend() -> None:
    """Raise RequestError unless KERAS_BACKEND, if it is set, names a library that can be used here."""
    name = os.environ.get("KERAS_BACKEND", BACKENDS[0])
    if name not in BACKENDS:
        raise RequestError(f"KERAS_BACKEND={name}: must be {' or '.join(BACKENDS)}")
    if importlib.util.find_spec(name) is None:
        raise RequestError(f"KERAS_BACKEND={name}: {name} is not installed")


def start_keras() -> None:
    """Import Keras, on TensorFlow unless KERAS_BACKEND says otherwise, without the start-up noise of its C++ part.

    Further calls cost nothing. What the libraries print is shown after all if the import fails.
    """
    if "keras" in sys.modules:
        return
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if _threads is not None and os.environ["KERAS_BACKEND"] == "jax":
        os.environ["NPROC"] = str(_threads)  # XLA takes it for the number of cores
    with _standard_error_held_back():
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            if _threads is not None:
                tf.config.threading.set_intra_op_parallelism_threads(_threads)
                tf.config.threading.set_inter_op_parallelism_threads(_threads)
            tf.config.list_logical_devices()  # the search for devices is what prints
            tf.get_logger().setLevel(logging.ERROR)  # it warns that each model's predict is traced anew, as it must be


def on_tensorflow() -> bool:
    """Whether Keras runs on TensorFlow, as it does unless KERAS_BACKEND says otherwise."""
    start_keras()
    import keras

    return bool(keras.backend.backend() == "tensorflow")


def prepare(seed: int, precision: str) -> None:
    """Make what follows repeatable: seed Python, NumPy and Keras, forget earlier models, set the precision.

    The same seed gives the same numbers on the same machine; ops that TensorFlow can only run in an unrepeatable
    order raise an error instead.
    """
    start_keras()
    import keras

    _forget_gradients()
    keras.backend.clear_session()
    _freeze_libraries()
    keras.utils.set_random_seed(seed)
    _draw_alone(seed)
    set_precision(precision)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

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
    import keras

    if keras.backend.backend() == "tensorflow":
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


def set_precision(precision: str) -> None:
    """Decide in what layers built from now on compute, float32 or bfloat16; their weights are float32 either way."""
    import keras

    keras.config.set_dtype_policy(POLICIES[precision])


@contextmanager
def precision_of(precision: str) -> Iterator[None]:
    """Layers that the block builds compute in `precision`; those of a fit that goes on around it do as before."""
    import keras

    before = keras.config.dtype_policy()
    set_precision(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def accelerate(model: keras.Model) -> keras.Model:
    """The same network for fitting, with fresh weights and TensorFlow's own layers where those are faster than Keras'.

    Weights have the same order and shapes, so that they go over with `set_weights`. On other Keras backends, or
    without such layers, it is `model` itself.
    """
    import keras

    if not on_tensorflow():
        return model
    fast = fast_layers.kinds()
    if not any(type(layer) in fast for layer in model.layers):
        return model

    def clone(layer: Any) -> Any:
        return fast.get(type(layer), type(layer)).from_config(layer.get_config())

    return keras.models.clone_model(model, clone_function=clone)


def graph(
    function: Callable[..., Any], inputs: Mapping[str, tuple[Sequence[int | None], Any]]
) -> tuple[Any, list[Any]]:
    """TensorFlow's graph function for `function` of tensors, and its signature; `inputs` by name, shape and dtype."""
    import tensorflow as tf

    signature = [tf.TensorSpec(shape, dtype, name) for name, (shape, dtype) in inputs.items()]
    return tf.function(function, input_signature=signature, autograph=False), signature


def answering(model: keras.Model) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """A function from images (B, 28, 28) to the model's probabilities (B, 10), compiled by its first call.

    Keras' `predict` builds a data set around the same graph, which takes 0.1 s and slows large batches down.
    """
    import numpy as np

    if not on_tensorflow():
        return lambda images: np.asarray(model.predict_on_batch(images))
    compiled, _ = graph(functools.partial(model, training=False), {"images": ((None, 28, 28), np.uint8)})
    return lambda images: np.asarray(compiled(images))


@contextmanager
def _standard_error_held_back() -> Iterator[None]:
    """Keep what C++ code writes to file descriptor 2; write it out only if the block raises."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        saved = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(saved, held.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
