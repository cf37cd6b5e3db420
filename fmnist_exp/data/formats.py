"""File formats: the four IDX files or two CSV files of Fashion-MNIST, and our own npz files; each is verified."""

import csv
import gzip
import hashlib
import io
import itertools
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

CLASS_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
CSV_FILES = {"train": "fashion-mnist_train.csv", "test": "fashion-mnist_test.csv"}
LINE_BYTES = 16 * 2**10  # of a CSV file's line; 785 numbers have 3 KiB, and the header 7 KiB
SLACK = 2**20  # bytes that a source file may have beyond its content, for the headers of gzip
NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
CSV_HEADER = ("label", *(f"pixel{i}" for i in range(1, 785)))


class SourceError(Exception):
    """A source cannot provide the data; the message says why."""


class DamagedFileError(Exception):
    """An npz file is damaged, for example because its writer was killed or the disk was full."""


@dataclass(frozen=True, eq=False)
class Parsed:
    """The images and labels of one source, before the split."""

    train_images: Bytes  # (N, 28, 28)
    train_labels: Bytes  # (N,)
    test_images: Bytes  # (M, 28, 28)
    test_labels: Bytes  # (M,)
    source: str


@dataclass(frozen=True)
class IdxFile:
    """One of the publisher's files."""

    name: str
    shape: tuple[int, ...]
    sha256: str  # of the decompressed file, since Debian compressed the files anew


IDX_FILES = {  # by the field of Parsed that it fills; the smallest first, so that a dead link is noticed early
    "test_labels": IdxFile(
        "t10k-labels-idx1-ubyte", (10_000,), "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
    "train_labels": IdxFile(
        "train-labels-idx1-ubyte", (60_000,), "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    "test_images": IdxFile(
        "t10k-images-idx3-ubyte", (10_000, 28, 28), "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    "train_images": IdxFile(
        "train-images-idx3-ubyte", (60_000, 28, 28), "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
}


def find_files(folder: Path) -> dict[str, Path]:
    """Return the paths of the files in a folder, by the keys of IDX_FILES or of CSV_FILES.

    Raises SourceError if the folder or some of the files are missing.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is not a folder")
    candidates = [(key, folder / f"{file.name}{end}") for end in (".gz", "") for key, file in IDX_FILES.items()]
    found = {key: path for key, path in candidates if path.is_file()}
    tables = {key: folder / name for key, name in CSV_FILES.items() if (folder / name).is_file()}
    if len(found) == len(IDX_FILES):
        return found
    if len(tables) == len(CSV_FILES):
        return tables
    if tables and not found:
        raise SourceError(f"{folder} lacks {next(name for key, name in CSV_FILES.items() if key not in tables)}")
    missing = ", ".join(f"{file.name}[.gz]" for key, file in IDX_FILES.items() if key not in found)
    raise SourceError(f"{folder} lacks {missing}" + ("" if found else f" (or {' and '.join(CSV_FILES.values())})"))


def read_files(files: Mapping[str, Path], source: str) -> Parsed:
    """Parse and verify the files that `find_files` found. Raises SourceError if one of them is damaged."""
    if files.keys() == CSV_FILES.keys():
        (images, labels), (test_images, test_labels) = read_csv(files["train"]), read_csv(files["test"])
        counts = np.bincount(labels, minlength=len(CLASS_NAMES))
        if rare := ", ".join(name for name, count in zip(CLASS_NAMES, counts, strict=True) if count < 2):
            raise SourceError(f"{files['train']}: the split needs two rows of each class; too few of {rare}")
        return Parsed(images, labels, test_images, test_labels, source)
    arrays = {key: read_idx(files[key], file.shape, file.sha256) for key, file in IDX_FILES.items()}
    return Parsed(**arrays, source=source)


def read_csv(path: Path) -> tuple[Bytes, Bytes]:
    """Return images and labels of a CSV file, which has a header, then a label and 784 pixels in each row."""
    _check_lines(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = tuple(next(csv.reader(file), ()))
            if header != CSV_HEADER:
                raise SourceError(f"{path}: {_header_fault(header)}")
            # one column more than expected, so that a row of 786 shows; in chunks, since 64-bit integers take 8 times
            # the space
            options = {"header": None, "names": [*CSV_HEADER, "extra"], "index_col": False, "low_memory": False}
            parts = [_checked(path, chunk) for chunk in pd.read_csv(file, chunksize=5_000, **options)]
    except ValueError as error:  # pandas' ParserError among them
        raise SourceError(f"{path}: {' '.join(str(error).split())}") from error
    if not sum(map(len, parts)):
        raise SourceError(f"{path}: no rows after the header")
    rows = np.concatenate(parts)
    return rows[:, 1:].reshape(-1, 28, 28), rows[:, 0]


def _check_lines(path: Path) -> None:
    """Raise SourceError if a line is too long for 785 values, before a parser reads it whole."""
    with path.open("rb") as file:
        for number in itertools.count(1):
            line = file.readline(LINE_BYTES + 1)
            if len(line) > LINE_BYTES:
                raise SourceError(f"{path}: line {number} has more than {LINE_BYTES:,} bytes, expected 785 values")
            if not line:
                return


def _header_fault(header: tuple[str, ...]) -> str:
    if len(header) != len(CSV_HEADER):
        return f"the header has {len(header)} columns, expected 785: label, pixel1, …, pixel784"
    column = next(i for i, pair in enumerate(zip(header, CSV_HEADER, strict=True)) if pair[0] != pair[1])
    return f"the header's column {column + 1} is {header[column]!r}, expected {CSV_HEADER[column]!r}"


def _checked(path: Path, chunk: pd.DataFrame) -> Bytes:
    """Return rows as bytes (n, 785). Raises SourceError, which names the first cell without a valid label or pixel."""
    if chunk["extra"].notna().any():
        row = chunk.index[chunk["extra"].notna()][0]
        raise SourceError(f"{path}: row {row + 1} after the header has more than 785 values")
    cells = chunk[list(CSV_HEADER)]
    numbers = cells.apply(pd.to_numeric, errors="coerce").to_numpy(float)
    highest = np.where(np.array(CSV_HEADER) == "label", 9, 255)
    right = (numbers >= 0) & (numbers <= highest) & (np.floor(numbers) == numbers)
    wrong = ~right | cells.dtypes.map(pd.api.types.is_bool_dtype).to_numpy()
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        found = "is empty" if pd.isna(cells.iat[row, column]) else f"is {str(cells.iat[row, column])!r}"
        limit = f"an integer from 0 to {highest[column]}"
        where = f"row {chunk.index[row] + 1} after the header, column {CSV_HEADER[column]}"
        raise SourceError(f"{path}: {where}: {found}, expected {limit}")
    return np.asarray(numbers, np.uint8)


def read_idx(path: Path, shape: tuple[int, ...], sha256: str) -> Bytes:
    """Return the array in an IDX file, gzipped or not. Raises SourceError if its shape or digest is wrong."""
    length = math.prod(shape)
    if (size := path.stat().st_size) > length + SLACK:
        raise SourceError(f"{path}: {size:,} bytes, expected at most {length + SLACK:,}")
    try:
        with path.open("rb") as plain:
            zipped = plain.peek(2)[:2] == b"\x1f\x8b"  # a browser may unzip a file and keep its name
            with gzip.GzipFile(fileobj=plain) if zipped else plain as file:
                content = file.read(4 + 4 * len(shape) + length + 1)  # one more than expected, to notice what follows
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(f"{path}: damaged gzip: {error}") from error
    if fault := _idx_fault(content, shape, sha256):
        raise SourceError(f"{path}: {fault}")
    return np.frombuffer(content, np.uint8)[-length:].reshape(shape)


def _idx_fault(content: bytes, shape: tuple[int, ...], sha256: str) -> str:
    """Return what is wrong with the content of an IDX file, or nothing."""
    start = 4 + 4 * len(shape)
    if len(content) < 4 or content[:2] != b"\0\0":
        return f"not an IDX file: starts with {content[:4].hex() or 'nothing'}, expected 0000"
    if content[2] != 8:
        return f"values of type 0x{content[2]:02x}, expected 0x08 (unsigned byte)"
    if content[3] != len(shape):
        return f"{content[3]} dimensions, expected {len(shape)}"
    if len(content) < start:
        return f"ends within its header of {start} bytes"
    if (found := struct.unpack(f">{len(shape)}I", content[4:start])) != shape:
        return f"dimensions {found}, expected {shape}"
    if (size := start + math.prod(shape)) != len(content):
        # what follows was not read to its end, so its length is unknown
        return f"{'more' if len(content) > size else f'only {len(content):,}'} bytes, expected {size:,}"
    if (found_sha256 := hashlib.sha256(content).hexdigest()) != sha256:
        why = "damaged, or another data set (MNIST's has the same names)"
        return f"SHA-256 {found_sha256}, expected {sha256}: {why}"
    return ""


def read_arrays(file: Path) -> dict[str, NDArray[np.generic]]:
    """Return the arrays in an npz file, by name. Raises DamagedFileError, or OSError if the file cannot be read.

    The file must be one that `numpy.savez` wrote, which compresses nothing: no array is larger than its bytes in it.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise DamagedFileError(f"{file.name} is damaged: it has compressed arrays")
            if sum(entry.file_size for entry in entries) > file.stat().st_size:
                raise DamagedFileError(f"{file.name} is damaged: its arrays are larger than the file")
            # `read` compares the checksum of the whole entry; np.load(file) reads as far as the array's header says
            return {entry.filename.removesuffix(".npy"): _array(archive.read(entry)) for entry in entries}
    except (OSError, DamagedFileError):
        raise
    except Exception as error:  # zipfile and NumPy have a dozen ways to say that bytes are wrong
        raise DamagedFileError(f"{file.name} is damaged: {error}") from error


def _array(content: bytes) -> NDArray[np.generic]:
    """Return an array from the bytes of an npy file, after comparing its shape with their number."""
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    shape, _, kind = NPY_HEADERS[version](stream)
    if kind.hasobject or math.prod(shape) * kind.itemsize != len(content) - stream.tell():
        raise ValueError(f"the shape {shape} of {kind} does not fit its {len(content):,} bytes")
    array: NDArray[np.generic] = np.load(io.BytesIO(content), allow_pickle=False)
    return array
