"""Seeds, threads and precision of this process. The only module that imports tensorflow."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal


def start_keras() -> None:
    """Import Keras, on TensorFlow unless KERAS_BACKEND says otherwise, without the start-up noise of its C++ part.

    Further calls cost nothing. What the libraries print is shown after all if the import fails.
    """
    if "keras" in sys.modules:
        return
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _standard_error_held_back():
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.config.list_logical_devices()  # the search for devices is what prints
            tf.get_logger().setLevel(logging.ERROR)  # it warns that each model's predict is traced anew, as it must be


def prepare(seed: int, precision: Literal["float32", "bfloat16"]) -> None:
    """Make what follows repeatable: seed Python, NumPy and Keras, forget earlier models, set the precision.

    The same seed gives the same numbers on the same machine; ops that TensorFlow can only run in an unrepeatable
    order raise an error instead.
    """
    start_keras()
    import keras

    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    set_precision(precision)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()


def set_precision(precision: Literal["float32", "bfloat16"]) -> None:
    """Decide in what layers built from now on compute; their weights are float32 either way."""
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")


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
