"""Inspect the files of a model's folder in a child process with limits, before this process reads them.

The child checks sizes from headers before it allocates anything, then loads the ONNX file and lets it classify one
image. It runs no code of the model, and imports neither Keras, TensorFlow nor MLflow, so that it starts in half a
second.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from fmnist_exp.errors import WorkError

CHILD = f"{__name__}.child"
MEMORY = 176 * 2**20  # bytes that the child may allocate for a model of no size; its libraries take a third of them
PER_BYTE = 2  # bytes more for each byte of the model's files: ONNX Runtime keeps several copies of the weights
SECONDS = 5  # of processor time, for a model of no size
PER_SECOND = 16 * 2**20  # bytes of the model's files for each second more
PATIENCE = 12  # seconds that may pass for each second of processor time, on a busy machine
BLOCK = 512  # bytes of the blocks that a file takes on the disk
LARGEST = 4 * 2**30  # bytes of a model's files in all


def inspect(folder: Path, name: str) -> None:
    """Raise WorkError unless the files of a model's folder are harmless to load.

    A model is refused if a file would take more memory or time than its size warrants, or is not of the kind that
    `packaging.save` writes. The limits of the child grow with the true size of the files on the disk.

    Args:
        folder: the folder of an MLflow model, whose files nobody else changes meanwhile.
        name: how the model is called in the error, for example `fashion-mnist version 3`.

    Raises:
        WorkError: one sentence that starts with `name`.
    """
    size = sum(_true_size(file.lstat()) for file in folder.rglob("*"))
    if size > LARGEST:
        raise WorkError(f"{name} cannot be loaded: its files have {size:,} bytes, and at most {LARGEST:,} are read")
    seconds = SECONDS + size // PER_SECOND
    arguments = [str(folder.absolute()), str(MEMORY + PER_BYTE * size), str(seconds)]
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", CHILD, *arguments],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE * seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise WorkError(f"{name} cannot be loaded: reading its files took over {error.timeout:g} seconds") from error
    if done.returncode:
        raise WorkError(f"{name} cannot be loaded: {done.stdout.decode(errors='replace') or _death(done.returncode)}")


def _true_size(found: os.stat_result) -> int:
    """Return the bytes that a file takes on the disk: one with holes takes less than it says, and warrants no more."""
    return min(found.st_size, getattr(found, "st_blocks", found.st_size) * BLOCK)  # Windows counts no blocks


def _environment() -> dict[str, str]:
    """Return the environment of the child: this package is found, and libraries start no threads of their own."""
    path = os.pathsep.join([str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])])
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX"), "1")
    return {**os.environ, **threads, "PYTHONPATH": path, "ORT_DISABLE_TELEMETRY": "1"}


def _death(code: int) -> str:
    """Return why the child ended without a sentence of its own."""
    if code < 0 and -code in (signal.SIGKILL, getattr(signal, "SIGXCPU", None)):
        return "reading its files takes more time or memory than their size warrants"
    return f"reading its files failed (exit code {code})"
