"""Check a .keras file from its headers: a zip archive with two JSON files and an HDF5 file of weights."""

import zipfile
from pathlib import Path
from typing import IO

import h5py

from fmnist_exp.errors import WorkError
from fmnist_exp.export.inspection import texts

ENTRIES = ("config.json", "metadata.json", "model.weights.h5")
JSON_BYTES = 8 * 2**20  # of config.json; a network of 1,000 layers has 1 MiB
OBJECTS = 100_000  # groups and datasets
DEPTH = 50  # groups inside each other
ATTRIBUTE_BYTES = 4096  # an attribute holds the name of a layer or of a type
KINDS = "biuf"  # truth values, integers and floats


def check(file: Path) -> None:
    """Raise WorkError, or what the readers raise, unless the archive holds what Keras writes, at the size it says."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        names = sorted(entry.filename for entry in entries)
        if names != sorted(ENTRIES):
            shown = ", ".join(map(repr, names[:5]))
            raise WorkError(f"the archive must contain {', '.join(ENTRIES)} and nothing else, found {shown}")
        for entry in entries:
            # Keras compresses nothing, so an entry is never larger than the file, whatever its header says
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise WorkError(f"{entry.filename} is compressed, which Keras never does ({entry.file_size:,} bytes)")
        if sum(entry.file_size for entry in entries) > file.stat().st_size:
            raise WorkError("the entries of the archive are larger than the file")
        for name in ENTRIES[:2]:
            if archive.getinfo(name).file_size > JSON_BYTES:
                size = archive.getinfo(name).file_size
                raise WorkError(f"{name} has {size:,} bytes, and at most {JSON_BYTES:,} are read")
            texts.check_json(archive.read(name))
        with archive.open(ENTRIES[2]) as weights:
            check_hdf5(weights, archive.getinfo(ENTRIES[2]).file_size)


def check_hdf5(file: IO[bytes], size: int) -> None:
    """Raise WorkError, or what h5py raises, unless every dataset lies plainly inside the file's `size` bytes.

    No dataset is read. Links to other places, datasets in pieces, compressed or in other files are refused, and so are
    shapes for which the file has no bytes, which h5py would fill with zeros.
    """
    total, seen = 0, set[int]()
    with h5py.File(file, "r") as opened:
        waiting: list[tuple[h5py.Group, int]] = [(opened, 0)]
        while waiting:
            group, depth = waiting.pop()
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise WorkError(f"{name!r} is a link to another place, which Keras does not write")
                found = group[name]
                address = h5py.h5o.get_info(found.id).addr
                if address in seen or depth >= DEPTH or len(seen) >= OBJECTS:
                    raise WorkError(f"{name!r} is one group or dataset too many, repeated, or nested too deep")
                seen.add(address)
                _check_attributes(found)
                if isinstance(found, h5py.Group):
                    waiting.append((found, depth + 1))
                else:
                    total += _checked_bytes(found, size)
    if total > size:
        raise WorkError(f"the weights have {total:,} bytes, and the file only {size:,}")


def _checked_bytes(dataset: object, size: int) -> int:
    """Return the number of bytes of a dataset that lies in one piece inside a file of `size` bytes."""
    if not isinstance(dataset, h5py.Dataset):
        raise WorkError("it has an object that is neither a group nor a dataset")
    name, kind = dataset.name, dataset.dtype
    if kind.kind not in KINDS or kind.shape or h5py.check_vlen_dtype(kind) or h5py.check_ref_dtype(kind):
        raise WorkError(f"{name} does not hold plain numbers")
    layout = dataset.id.get_create_plist()
    if layout.get_layout() != h5py.h5d.CONTIGUOUS or layout.get_nfilters() or layout.get_external_count():
        raise WorkError(f"{name} is compressed or in pieces, or in another file, which Keras does not do")
    count, stored = dataset.size or 0, dataset.id.get_storage_size()
    start = dataset.id.get_offset() if count else 0
    if count * kind.itemsize != stored or start is None or start + stored > size:
        raise WorkError(f"{name} has the shape {dataset.shape}, for which the file has {stored:,} bytes")
    return int(stored)


def _check_attributes(found: h5py.Group | h5py.Dataset) -> None:
    if len(found.attrs) > OBJECTS:
        raise WorkError(f"{found.name} has too many attributes")
    for name in found.attrs:
        attribute = found.attrs.get_id(name)
        points, width = attribute.get_space().get_simple_extent_npoints(), attribute.get_type().get_size()
        if points * width > ATTRIBUTE_BYTES:
            raise WorkError(f"the attribute {name!r} of {found.name} has {points * width:,} bytes")
