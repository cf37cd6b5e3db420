"""Fashion-MNIST as verified arrays, split by class and seed into images for training, validation and the gate."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

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
    """Images and labels for one purpose: "train", "validation", "gate" or "test"."""

    name: str
    images: Bytes  # (N, 28, 28)
    labels: Bytes  # (N,)

    @cached_property
    def digest(self) -> str:
        """The hash of the content, 32 characters long; MLflow allows at most 36."""
        content = hashlib.sha256(np.ascontiguousarray(self.images).data)
        content.update(np.ascontiguousarray(self.labels).data)
        return content.hexdigest()[:32]


NONE_FOR_THE_GATE: Final = Split("gate", np.zeros((0, 28, 28), np.uint8), np.zeros(0, np.uint8))


@dataclass(frozen=True, eq=False)
class FashionMNIST:
    """The four splits, and the origin of the data; `validation` and `gate` may be empty.

    The gate of the registry compares models on the images in `gate`, and a search measures on them at its end what it
    gained (`tuning.gain`). No fit and no choice of an epoch or a trial uses them.
    """

    train: Split
    validation: Split
    test: Split
    source: str
    gate: Split = NONE_FOR_THE_GATE
    order: Indices | None = None  # (N,) places in the source of the images of train, validation, gate; None: ascending

    def check_batch_size(self, batch_size: int) -> None:
        """Raise RequestError if there are fewer training images than in one batch."""
        images = len(self.train.images)
        if batch_size > images:
            raise RequestError(f"training.batch_size={batch_size}: must be at most {images}, the training images")

    def without_holdout(self) -> FashionMNIST:
        """Return the same data with the images of validation and gate moved into `train`, in the source's order."""
        return self.resplit(DataConfig(validation_fraction=0, gate_fraction=0), seed=0)

    def resplit(self, config: DataConfig, seed: int) -> FashionMNIST:
        """Return the same data with a new split, equal to the split of `load`."""
        parts = self.train, self.validation, self.gate
        images = np.concatenate([part.images for part in parts])
        labels = np.concatenate([part.labels for part in parts])
        if self.order is not None:
            places = np.argsort(self.order)
            images, labels = images[places], labels[places]
        return _split(images, labels, self.test, self.source, config, seed)


def load(config: DataConfig, seed: int, sources: Sequence[Source] = SOURCES) -> FashionMNIST:
    """Find, verify and split the images; `seed` is that of the split, unless `config.split_seed` is set.

    The images come from the folder that `config` names; if it names none, from the cache or the first of `sources` that
    has them. Raises RequestError if the named folder is missing, incomplete or damaged, WorkError if no source has any.
    """
    parsed = _named(config.source) if config.source else _found(sources)
    test = Split("test", parsed.test_images, parsed.test_labels)
    return _split(parsed.train_images, parsed.train_labels, test, parsed.source, config, seed)


def _split(images: Bytes, labels: Bytes, test: Split, source: str, config: DataConfig, seed: int) -> FashionMNIST:
    gate = gate_indices(labels, config.gate_fraction)
    rest = np.delete(np.arange(len(labels)), gate)
    fraction = config.validation_fraction * len(labels) / max(1, len(rest))
    seed = seed if config.split_seed is None else config.split_seed
    # without images of the gate, the split is that of the releases that had none, whose models can then be compared
    random = generator(Stream.SPLIT, seed) if len(gate) else np.random.default_rng(seed)
    kept, held_out = split_indices(labels[rest], fraction, random)
    chosen = {"train": rest[kept], "validation": rest[held_out], "gate": gate}
    train, validation, reserved = (Split(name, images[part], labels[part]) for name, part in chosen.items())
    return FashionMNIST(train, validation, test, source, reserved, np.concatenate([*chosen.values()]))


def gate_indices(labels: Bytes, fraction: float) -> Indices:
    """Return the indices of the images that are kept back for the gate, ascending.

    They are drawn in proportion to the classes. The draw depends on the labels alone, so that all experiments keep
    back the same images, and those of a smaller fraction are a part of those of a larger one.
    """
    random = generator(Stream.GATE, 0)
    turn = np.empty(len(labels))  # (N,) fraction at which the image is drawn
    for label, count in enumerate(np.bincount(labels, minlength=10)):
        turn[random.permutation(np.flatnonzero(labels == label))] = (np.arange(count) + 0.5) / max(1, count)
    return np.sort(np.argsort(turn, kind="stable")[: round(len(labels) * fraction)])


def split_indices(labels: Bytes, fraction: float, random: np.random.Generator) -> tuple[Indices, Indices]:
    """Return the indices of the training and of the validation images, both ascending.

    The validation images are drawn in proportion to the classes. Importing scikit-learn's function for this takes 1 s.
    """
    if not fraction:
        return np.arange(len(labels)), np.arange(0)
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
    names = ", ".join(f"{file.name}.gz" for file in IDX_FILES.values())
    raise WorkError(
        f"Fashion-MNIST was not found (tried {'; '.join(tried)}); put {names} into a folder, and name the folder with"
        " --data.source"
    )
