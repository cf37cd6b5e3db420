"""The backend of this process: start it with a number of threads, and set the precision of layers."""

import importlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import keras

from fmnist_exp.backend.loading import stderr_held_back

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}  # precision → Keras' name for it

_started = False


def start(threads: int | None = None) -> None:
    """Start TensorFlow or JAX, before the first computation of this process; later calls do nothing.

    It computes with `threads` threads, by default one for each core. The number has no effect if the backend has
    computed before.
    """
    global _started
    if _started:
        return
    if on_tensorflow():
        _start_tensorflow(threads)
    elif threads is not None:
        os.environ["NPROC"] = str(threads)  # XLA reads it as the number of cores
    _started = True


def _start_tensorflow(threads: int | None) -> None:
    import tensorflow as tf  # late: with KERAS_BACKEND=jax it need not be installed

    if threads is not None:
        with suppress(RuntimeError):  # TensorFlow has computed before
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
    with stderr_held_back():
        tf.config.list_logical_devices()  # the search for devices prints messages
    tf.get_logger().setLevel(logging.ERROR)  # TensorFlow warns when each new model's predict is traced


def on_tensorflow() -> bool:
    """Return True if Keras runs on TensorFlow, False if it runs on JAX."""
    return bool(keras.backend.backend() == "tensorflow")


def threads() -> int:
    """Return the number of threads that this process computes with."""
    named: str | int = os.environ.get("NPROC", 0)
    if on_tensorflow():
        import tensorflow as tf  # late: with KERAS_BACKEND=jax it need not be installed

        named = tf.config.threading.get_intra_op_parallelism_threads()  # 0: one for each core
    return int(named) or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def has_onednn() -> bool:
    """Return whether the backend is TensorFlow and computes with oneDNN, which an environment variable turns off."""
    is_off = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1").lower() in ("0", "false")
    return on_tensorflow() and not is_off and sys.platform != "darwin"


def version() -> str:
    """Return the backend with its version, and whether TensorFlow lacks oneDNN, or an environment variable limits it.

    Kernels for other instructions round differently.
    """
    name, note = keras.backend.backend(), ""
    if on_tensorflow():
        limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "DEFAULT").upper()
        limited = f" with oneDNN limited to {limit}" if limit != "DEFAULT" else ""
        note = limited if has_onednn() else " without oneDNN"
    return f"{name} {importlib.import_module(name).__version__}{note}"


def set_precision(precision: str) -> None:
    """Make layers built from now on compute in float32 or bfloat16. Their weights are float32 in both cases."""
    keras.config.set_dtype_policy(POLICIES[precision])


@contextmanager
def precision_of(precision: str) -> Iterator[None]:
    """Make layers built inside the block compute in `precision`, and restore the previous precision after the block."""
    before = keras.config.dtype_policy()
    set_precision(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
