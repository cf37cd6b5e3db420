"""Fashion-MNIST as verified arrays, with a stratified and seeded split into training and validation."""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.config.schema import DataConfig
from fmnist_exp.data.cache import cache_folder, read_cache, write_cache
from fmnist_exp.data.formats import IDX_FILES, Parsed, SourceError, find_files, read_files
from fmnist_exp.data.sources import SOURCES, Source
from fmnist_exp.errors import RequestError, WorkError

Bytes = NDArray[np.uint8]

# fmt: off
CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)


@dataclass(frozen=True, eq=False)
class Split:
    """Images and labels for one purpose: "train", "validation" or "test"."""

    name: str
    images: Bytes  # (N, 28, 28)
    labels: Bytes  # (N,)

    @cached_property
    def digest(self) -> str:
        """The content's hash, 32 characters (MLflow takes 36)."""
        content = hashlib.sha256(np.ascontiguousarray(self.images).data)
        content.update(np.ascontiguousarray(self.labels).data)
        return content.hexdigest()[:32]


@dataclass(frozen=True, eq=False)
class FashionMNIST:
    """The three splits, and where they came from in the first place; `validation` may be empty."""

    train: Split
    validation: Split
    test: Split
    source: str


def load(config: DataConfig, seed: int, sources: Sequence[Source] = SOURCES) -> FashionMNIST:
    """Find, verify and split the images.

    Raises:
        RequestError: the folder that the user named is missing, incomplete or damaged.
        WorkError: no folder was named, and no source has the data.
    """
    parsed = _named(config.source) if config.source else _found(sources)
    split_seed = seed if config.split_seed is None else config.split_seed
    kept, held_out = split_indices(parsed.train_labels, config.validation_fraction, split_seed)
    # indexing copies, which frees the cache's memory map
    return FashionMNIST(
        train=Split("train", parsed.train_images[kept], parsed.train_labels[kept]),
        validation=Split("validation", parsed.train_images[held_out], parsed.train_labels[held_out]),
        test=Split("test", parsed.test_images.copy(), parsed.test_labels.copy()),
        source=parsed.source,
    )


def split_indices(
    labels: Bytes, fraction: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:  # training, validation; both ascending
    """Draw the validation images at random, each class in proportion: scikit-learn's split takes 1 s to import."""
    if not fraction:
        return np.arange(len(labels)), np.arange(0)
    random = np.random.default_rng(seed)
    share = np.bincount(labels, minlength=10) * fraction
    taken = np.floor(share).astype(int)
    missing = max(1, round(len(labels) * fraction)) - taken.sum()
    taken[np.argsort(taken - share, kind="stable")[:missing]] += 1  # largest remainders first
    held_out = np.zeros(len(labels), bool)
    for label, count in enumerate(taken):
        held_out[random.permutation(np.flatnonzero(labels == label))[:count]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _named(source: str) -> Parsed:
    folder = Path(source).expanduser().absolute()
    entry = "folder-" + hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    try:
        files = find_files(folder)
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        return _cached(entry, str(stats), lambda: _read(files, str(folder)))
    except (SourceError, OSError) as error:
        raise RequestError(f"data.source: {error}; with data.source empty the data is found or downloaded") from error


def _read(files: Sequence[Path], source: str) -> Parsed:
    parsed = read_files(files, source)
    counts = np.bincount(parsed.train_labels, minlength=len(CLASS_NAMES))
    if rare := [name for name, count in zip(CLASS_NAMES, counts, strict=True) if count < 2]:
        raise SourceError(f"{files[0]}: the split needs two rows of each class; too few of {', '.join(rare)}")
    return parsed


def _cached(entry: str, stamp: str, read: Callable[[], Parsed]) -> Parsed:
    try:
        return read_cache(entry, stamp)
    except SourceError:
        parsed = read()
        write_cache(entry, stamp, parsed)
        return parsed


def _found(sources: Sequence[Source]) -> Parsed:
    """What the cache or the first source that works has."""
    tried = []
    try:
        return read_cache("official", stamp="")
    except SourceError as error:
        tried.append(f"the cache {cache_folder()}: {error}")
    for source in sources:
        with tempfile.TemporaryDirectory() as temporary:
            try:
                parsed = read_files(find_files(source.fetch(Path(temporary))), source.origin)
            except (SourceError, OSError) as error:
                tried.append(f"{source.name}: {error}")
                continue
        write_cache("official", "", parsed)
        return parsed
    reasons = "".join(f"\n  {line}" for line in tried)
    names = ", ".join(f"{name}.gz" for name in IDX_FILES)
    raise WorkError(
        f"Fashion-MNIST was not found; tried{reasons}\n"
        f"Put {names} into a folder and run\n  mlflow run . -P data.source=FOLDER"
    )
