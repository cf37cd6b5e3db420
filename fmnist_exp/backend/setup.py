"""Seeds, threads, precision and fast layers of this process. Only it and fast_layers.py import tensorflow."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fmnist_exp.errors import RequestError

if TYPE_CHECKING:
    pass


BACKENDS = ("tensorflow", "jax")
POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # precision → Keras' name for it

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
