"""Bombs: each function ruins the archive, the weights or a text of a model, so that reading it takes memory or time."""

import io
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np

Sample = Callable[[Path], object]
GIB = 2**30
WEIGHTS = "model.weights.h5"


# the .keras file: a zip archive with three entries


def write_keras(folder: Path, changes: Mapping[str, bytes]) -> None:
    """Write the archive anew, with other content of some entries and with further ones."""
    file = folder / "data" / "model.keras"
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in (content | changes).items():
            archive.writestr(name, text)


def zeros_deflated(size: int) -> bytes:
    """Return what unpacks to `size` zeros, in a thousandth of the time and of the bytes that unpacking takes."""
    part = 2**26
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(part)) + packer.flush(zlib.Z_FULL_FLUSH)  # after it, the same bytes mean the same
    return block * (size // part) + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def zip_bomb(folder: Path, entry: str, size: int, said: int | None = None) -> None:
    """Let an entry unpack to `size` bytes of zeros; the headers say `said`, or the truth."""
    file = folder / "data" / "model.keras"
    with zipfile.ZipFile(file) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content[entry] = zeros_deflated(size)
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
        info = archive.getinfo(entry)  # the directory at the end is written from it
        info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, said or size
    raw = bytearray(file.read_bytes())
    struct.pack_into("<H", raw, info.header_offset + 8, zipfile.ZIP_DEFLATED)
    file.write_bytes(raw)


def many_entries(folder: Path) -> None:
    with zipfile.ZipFile(folder / "data" / "model.keras", "a") as archive:
        for number in range(20_000):
            archive.writestr(f"assets/{number}", b"")


def entry_twice(folder: Path) -> None:
    with zipfile.ZipFile(folder / "data" / "model.keras", "a") as archive, warnings.catch_warnings(action="ignore"):
        archive.writestr("config.json", "{}")


def cut(folder: Path, name: str, share: float) -> None:
    """Keep the first part of a file, as a broken download does."""
    file = folder / "data" / name
    os.truncate(file, int(file.stat().st_size * share))


# the weights: an HDF5 file inside the archive


def hdf5(folder: Path, fill: object) -> None:
    """Let `fill` write into an HDF5 file with the groups that Keras makes, and put it into the archive."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file.create_group("layers/dense/vars"))
    write_keras(folder, {WEIGHTS: buffer.getvalue()})


def zeros_in_pieces(group: h5py.Group) -> None:
    data = group.create_dataset("0", (64, 2**24), "f4", chunks=(1, 2**24), compression="gzip")
    packed = zlib.compress(bytes(2**26))
    for row in range(64):
        data.id.write_direct_chunk((row, 0), packed)


def nothing_stored(group: h5py.Group, size: int = GIB) -> None:
    """Declare a shape; HDF5 keeps no bytes for it until something is written, and reads zeros."""
    group.create_dataset("0", (size,), "f4")


def virtual(group: h5py.Group) -> None:
    layout = h5py.VirtualLayout((GIB,), "f4")
    layout[:] = h5py.VirtualSource(".", "elsewhere", (GIB,))
    group.create_virtual_dataset("0", layout)


def circle(group: h5py.Group) -> None:
    group["again"] = group.parent.parent


def deep_groups(group: h5py.Group) -> None:
    for _ in range(3_000):
        group = group.create_group("g")


def large_attribute(group: h5py.Group) -> None:
    group.create_dataset("0", data=np.zeros(3, "f4")).attrs["dtype"] = np.zeros(8_000, "f8")


# the text files


def laughs(levels: int = 9) -> str:
    """Return YAML of a few hundred bytes whose aliases expand to ten to the power of `levels`."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    return "\n".join(lines) + "\n"
