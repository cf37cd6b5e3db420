"""The import of Keras: check the backend that it will use, and hide the start-up messages of its C++ libraries."""

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from fmnist_exp.errors import RequestError

BACKENDS = ("tensorflow", "jax")


def load_keras() -> None:
    """Import Keras on the backend that KERAS_BACKEND names; later calls do nothing.

    Commands call this before they import a module that has `import keras` at its top. Raises RequestError if the
    library is not supported or not installed.
    """
    name = os.environ["KERAS_BACKEND"]
    if name not in BACKENDS:
        raise RequestError(f"KERAS_BACKEND={name}: must be {' or '.join(BACKENDS)}")
    if importlib.util.find_spec(name) is None:
        raise RequestError(f"KERAS_BACKEND={name}: {name} is not installed")
    # TensorFlow Lite imports JAX if it is installed, which takes half a second and helps nobody here
    with stderr_held_back(), hidden("jax") if name == "tensorflow" else nullcontext():
        importlib.import_module("keras")


@contextmanager
def hidden(library: str) -> Iterator[None]:
    """Let the block find the library missing, unless it has been imported before."""
    if library in sys.modules:
        yield
        return
    sys.modules[library] = None  # type: ignore[assignment]  # what Python documents for this
    try:
        yield
    finally:
        del sys.modules[library]


@contextmanager
def stderr_held_back() -> Iterator[None]:
    """Discard what the block writes to file descriptor 2, or write it out if the block raises.

    C++ libraries write to the descriptor, beyond the reach of `contextlib.redirect_stderr`.
    """
    import tempfile  # late, since `--help` needs neither it nor the modules that it imports

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
