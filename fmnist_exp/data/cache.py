"""The cache of parsed images: one file for each source, with a checksum."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    pass

from fmnist_exp.data.formats import Parsed, SourceError
from fmnist_exp.data.sources import log


def cache_folder() -> Path:
    """Where parsed arrays are kept."""
    if named := os.environ.get("FMNIST_EXP_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "fmnist_exp"


# An entry is one file: the SHA-256 of all that follows, a line of JSON, and the bytes of the four arrays.
_DIGEST = hashlib.sha256().digest_size * 2 + 1  # characters of the first line


def read_cache(name: str, stamp: str) -> Parsed:
    """The entry `name`, memory-mapped, if it is whole and carries this stamp. Raises SourceError."""
    path = cache_folder() / name
    try:
        content = np.memmap(path, np.uint8, mode="r").view(np.ndarray)
        # 30 ms for 55 MB, against hours lost to a damaged file
        if content[:_DIGEST].tobytes() != _line(hashlib.sha256(content[_DIGEST:].data).hexdigest()):
            raise SourceError("damaged; it is made anew")
    except FileNotFoundError as error:
        raise SourceError("empty") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"unreadable: {error}") from error
    end = _DIGEST + content[_DIGEST : _DIGEST + 2**16].tobytes().index(b"\n") + 1
    header = json.loads(content[_DIGEST:end].tobytes())
    if header["stamp"] != stamp:
        raise SourceError("the files have changed since")
    train, test = header["train"], header["test"]
    parts = np.split(content[end:], np.cumsum([train * 784, train, test * 784]))
    images, labels, test_images, test_labels = parts
    return Parsed(images.reshape(-1, 28, 28), labels, test_images.reshape(-1, 28, 28), test_labels, header["source"])


def write_cache(name: str, stamp: str, parsed: Parsed) -> None:
    """Keep the arrays as the entry `name`. Where that fails, a notice is logged and the run goes on without."""
    folder = cache_folder()
    counts = {"train": len(parsed.train_labels), "test": len(parsed.test_labels)}
    header = _line(json.dumps({"source": parsed.source, "stamp": stamp, **counts}))
    arrays = parsed.train_images, parsed.train_labels, parsed.test_images, parsed.test_labels
    parts = [header, *(array.tobytes() for array in arrays)]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # another process may be writing the same entry: each writes its own file, and the renaming is atomic
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as temporary:
            draft = Path(temporary) / name
            with draft.open("wb") as file:
                file.writelines([_line(digest.hexdigest()), *parts])
            os.replace(draft, folder / name)
    except OSError as error:
        log.warning("the images are not cached, and the next start will be slower: %s", error)


def _line(text: str) -> bytes:
    return f"{text}\n".encode()
