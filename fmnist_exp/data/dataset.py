"""Fashion-MNIST as verified arrays, with a stratified and seeded split into training and validation."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.config.schema import DataConfig
from fmnist_exp.data.cache import cache_folder, read_cache, write_cache
from fmnist_exp.data.formats import IDX_FILES, Bytes, Parsed, SourceError, find_files, read_files
from fmnist_exp.data.sources import SOURCES, Source
from fmnist_exp.data.streams import Stream, generator
from fmnist_exp.errors import RequestError, WorkError

Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Split:
    """Images and labels for one purpose: "train", "validation" or "test"."""

    name: str
    images: Bytes  # (N, 28, 28)
    labels: Bytes  # (N,)

    @cached_property
    def digest(self) -> str:
        """The hash of the content, 32 characters long; MLflow allows at most 36."""
        content = hashlib.sha256(np.ascontiguousarray(self.images).data)
        content.update(np.ascontiguousarray(self.labels).data)
        return content.hexdigest()[:32]


@dataclass(frozen=True, eq=False)
class FashionMNIST:
    """The three splits, and the origin of the data; `validation` may be empty."""

    train: Split
    validation: Split
    test: Split
    source: str
    held_out: Indices | None = None  # indices of the validation images in the source's order; None: they come last

    def without_holdout(self) -> FashionMNIST:
        """Return the same data with the validation images moved into `train`, in the source's order."""
        return self.resplit(0.0, seed=0)

    def resplit(self, validation_fraction: float, seed: int) -> FashionMNIST:
        """Return the same data with a new split into training and validation images, equal to the split of `load`."""
        count = len(self.train.labels) + len(self.validation.labels)
        held_out = np.arange(len(self.train.labels), count) if self.held_out is None else self.held_out
        images = np.empty((count, *self.train.images.shape[1:]), np.uint8)
        labels = np.empty(count, np.uint8)
        for split, chosen in ((self.train, np.delete(np.arange(count), held_out)), (self.validation, held_out)):
            images[chosen], labels[chosen] = split.images, split.labels
        return _split(images, labels, self.test, self.source, validation_fraction, seed)


def load(config: DataConfig, seed: int, sources: Sequence[Source] = SOURCES) -> FashionMNIST:
    """Find, verify and split the images; `seed` is that of the split, unless `config.split_seed` is set.

    The images come from the folder that `config` names; if it names none, from the cache or the first of `sources` that
    has them. Raises RequestError if the named folder is missing, incomplete or damaged, WorkError if no source has any.
    """
    parsed = _named(config.source) if config.source else _found(sources)
    seed = seed if config.split_seed is None else config.split_seed
    test = Split("test", parsed.test_images, parsed.test_labels)
    return _split(parsed.train_images, parsed.train_labels, test, parsed.source, config.validation_fraction, seed)


def _split(images: Bytes, labels: Bytes, test: Split, source: str, fraction: float, seed: int) -> FashionMNIST:
    kept, held_out = split_indices(labels, fraction, seed)
    train = Split("train", images[kept], labels[kept])
    validation = Split("validation", images[held_out], labels[held_out])
    return FashionMNIST(train, validation, test, source, held_out)


def split_indices(labels: Bytes, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Return the indices of the training and of the validation images, both ascending.

    The validation images are drawn in proportion to the classes. Importing scikit-learn's function for this takes 1 s.
    """
    if not fraction:
        return np.arange(len(labels)), np.arange(0)
    random = generator(Stream.SPLIT, seed)
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
        stamp = str([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files.values()])
        with suppress(SourceError):
            return read_cache(entry, stamp)
        parsed = read_files(files, str(folder))
        write_cache(entry, stamp, parsed)
        return parsed
    except (SourceError, OSError) as error:
        raise RequestError(f"data.source: {error}; with data.source empty the data is found or downloaded") from error


def _found(sources: Sequence[Source]) -> Parsed:
    """Return the data from the cache, or from the first source that has it."""
    try:
        return read_cache("official", stamp="")
    except SourceError as error:
        tried = [f"the cache {cache_folder()}: {error}"]
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
    names = ", ".join(f"{file.name}.gz" for file in IDX_FILES.values())
    raise WorkError(
        f"Fashion-MNIST was not found; tried{reasons}\n"
        f"Put {names} into a folder and run\n  mlflow run . -P data.source=FOLDER"
    )
