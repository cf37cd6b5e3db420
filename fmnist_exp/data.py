"""Fashion-MNIST as verified arrays, with a stratified and seeded split into training and validation."""

import gzip
import hashlib
import math
import struct
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.config import DataConfig
from fmnist_exp.csv_images import read_csv
from fmnist_exp.data_sources import (
    IDX_FILES,
    SOURCES,
    Parsed,
    Source,
    SourceError,
    cache_folder,
    read_cache,
    write_cache,
)
from fmnist_exp.errors import RequestError, WorkError

Bytes = NDArray[np.uint8]

# fmt: off
CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)
# fmt: on
CSV_FILES = "fashion-mnist_train.csv", "fashion-mnist_test.csv"


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
        return _cached(entry, str(stats), lambda: read_files(files, str(folder)))
    except (SourceError, OSError) as error:
        raise RequestError(f"data.source: {error}; with data.source empty the data is found or downloaded") from error


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


def find_files(folder: Path) -> list[Path]:
    """The four IDX files, in the order of IDX_FILES, or the two CSV files. Raises SourceError."""
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder")
    candidates = [(name, folder / f"{name}{end}") for end in (".gz", "") for name in IDX_FILES]
    idx = {name: path for name, path in candidates if path.is_file()}
    tables = [folder / name for name in CSV_FILES if (folder / name).is_file()]
    if len(idx) == len(IDX_FILES):
        return [idx[name] for name in IDX_FILES]
    if len(tables) == len(CSV_FILES):
        return tables
    if tables and not idx:
        raise SourceError(f"{folder} lacks {next(name for name in CSV_FILES if folder / name not in tables)}")
    missing = ", ".join(f"{name}[.gz]" for name in IDX_FILES if name not in idx)
    raise SourceError(f"{folder} lacks {missing}" + ("" if idx else f" (or {' and '.join(CSV_FILES)})"))


def read_files(files: Sequence[Path], source: str) -> Parsed:
    """Parse and verify what find_files found. Raises SourceError."""
    if files[0].suffix == ".csv":
        (images, labels), (test_images, test_labels) = map(read_csv, files)
        rare = [name for name, count in zip(CLASS_NAMES, np.bincount(labels, minlength=10), strict=True) if count < 2]
        if rare:
            raise SourceError(f"{files[0]}: the split needs two rows of each class; too few of {', '.join(rare)}")
    else:
        arrays = (read_idx(path, *IDX_FILES[path.name.removesuffix(".gz")]) for path in files)
        test_labels, labels, test_images, images = arrays
    return Parsed(images, labels, test_images, test_labels, source)


def read_idx(path: Path, shape: tuple[int, ...], sha256: str) -> Bytes:
    """The array in an IDX file, gzipped or not, of this shape and with this SHA-256. Raises SourceError."""
    size = 4 + 4 * len(shape) + math.prod(shape)
    try:
        with path.open("rb") as plain:
            zipped = plain.peek(2)[:2] == b"\x1f\x8b"  # a browser may unzip a file and keep its name
            with gzip.GzipFile(fileobj=plain) if zipped else plain as file:
                content = file.read(size + 1)  # one more than expected, to notice what follows
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{path}: damaged gzip: {error}") from error
    try:
        return parse_idx(content, shape, sha256)
    except SourceError as error:
        raise SourceError(f"{path}: {error}") from error


def parse_idx(content: bytes, shape: tuple[int, ...], sha256: str) -> Bytes:
    """The array in an IDX file's bytes. Raises SourceError."""
    start = 4 + 4 * len(shape)
    if len(content) < 4 or content[:2] != b"\0\0":
        raise SourceError(f"not an IDX file: starts with {content[:4].hex() or 'nothing'}, expected 0000")
    if content[2] != 8:
        raise SourceError(f"values of type 0x{content[2]:02x}, expected 0x08 (unsigned byte)")
    if content[3] != len(shape):
        raise SourceError(f"{content[3]} dimensions, expected {len(shape)}")
    if len(content) < start:
        raise SourceError(f"ends within its header of {start} bytes")
    if (found := struct.unpack(f">{len(shape)}I", content[4:start])) != shape:
        raise SourceError(f"dimensions {found}, expected {shape}")
    if (size := start + math.prod(shape)) != len(content):
        # what follows was not read to its end, so its length is unknown
        raise SourceError(f"{'more' if len(content) > size else f'only {len(content):,}'} bytes, expected {size:,}")
    if (found_sha256 := hashlib.sha256(content).hexdigest()) != sha256:
        raise SourceError(
            f"SHA-256 {found_sha256}, expected {sha256}: damaged, or another data set (MNIST's has the same names)"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
