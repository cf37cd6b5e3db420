"""Read npz files, but only undamaged ones: the zip format keeps a checksum of each array."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class DamagedFileError(Exception):
    """A file is not an undamaged npz file: bits have flipped, its writer was killed, or the disk was full."""


def read_arrays(file: Path) -> dict[str, NDArray[np.generic]]:
    """Return the arrays in an npz file, by name.

    Raises:
        OSError: the file cannot be read.
        DamagedFileError: the file is damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            # `read` compares the checksum of the whole entry; np.load(file) reads as far as the array's header says
            return {name.removesuffix(".npy"): _array(archive.read(name)) for name in archive.namelist()}
    except OSError:
        raise
    except Exception as error:  # zipfile and NumPy have a dozen ways to say that bytes are wrong
        raise DamagedFileError(f"{file.name} is damaged: {error}") from error


def _array(content: bytes) -> NDArray[np.generic]:
    array: NDArray[np.generic] = np.load(io.BytesIO(content), allow_pickle=False)
    return array
