"""The cache of parsed images: one npz file for each source."""

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fmnist_exp.data.formats import DamagedFileError, Parsed, SourceError, read_arrays


def cache_folder() -> Path:
    """Return the folder of the cache: FMNIST_EXP_CACHE, or a folder in the user's cache directory."""
    if named := os.environ.get("FMNIST_EXP_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "fmnist_exp"


def read_cache(name: str, stamp: str) -> Parsed:
    """Return a cached entry. Raises SourceError if it is missing, damaged or written with another `stamp`."""
    try:
        content: dict[str, Any] = read_arrays(cache_folder() / f"{name}.npz")
        if str(content.pop("stamp")) != stamp:
            raise SourceError("the files have changed since")
        parsed = Parsed(**{**content, "source": str(content["source"])})
        _check(parsed)
        return parsed
    except FileNotFoundError as error:
        raise SourceError("empty") from error
    except OSError as error:
        raise SourceError(f"unreadable: {error}") from error
    except (DamagedFileError, KeyError, TypeError) as error:  # the last two: other arrays are in it
        raise SourceError("damaged; it is written anew") from error


def _check(parsed: Parsed) -> None:
    """Raise DamagedFileError unless the arrays are images and as many labels of the ten classes."""
    pairs = (parsed.train_images, parsed.train_labels), (parsed.test_images, parsed.test_labels)
    for images, labels in pairs:
        fits = images.shape == (len(labels), 28, 28) and labels.ndim == 1
        if not fits or images.dtype != np.uint8 or labels.dtype != np.uint8 or labels.max(initial=0) > 9:
            raise DamagedFileError("it has no images of 28 × 28 pixels with labels from 0 to 9")


def write_cache(name: str, stamp: str, parsed: Parsed) -> None:
    """Write an entry with a `stamp`, which changes when the source files change. Log a warning if writing fails."""
    file = cache_folder() / f"{name}.npz"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # another process may be writing the same entry: each writes its own file, and the renaming is atomic
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".writing-") as temporary:
            draft = Path(temporary) / file.name
            np.savez(draft, stamp=np.array(stamp), **vars(parsed))
            os.replace(draft, file)
    except OSError as error:
        logging.getLogger(__name__).warning("the images are not cached, and the next start will be slower: %s", error)
