"""Records on the disk: one checksummed line each, kept twice, so that a damaged line is read from the other copy."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEAD = "head"  # kind of the first record of a folder, number 0
_CHECKSUM = 16  # hexadecimal characters


@dataclass(frozen=True)
class Record:
    """One entry of a file of records. Ids in its body may be local ones."""

    number: int
    kind: str
    time: int  # milliseconds since the epoch
    body: Mapping[str, Any]


class Log:
    """Files to which the same lines are appended. They survive the end of this process, however it comes."""

    def __init__(self, *files: Path) -> None:
        self._descriptors = [os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666) for file in files]
        ends = [_end_of_lines(file) for file in files]
        self._sizes = dict(zip(self._descriptors, ends, strict=True))

    def append(self, record: Record) -> None:
        """Write a record to each file. Raises OSError; the next record then takes the place of what was written."""
        line = encode(record)
        for descriptor, size in self._sizes.items():
            written = 0
            while written < len(line):  # a disk that gets full takes a part of the line first
                written += os.pwrite(descriptor, line[written:], size + written)
        for descriptor in self._descriptors:
            self._sizes[descriptor] += len(line)

    def close(self) -> None:
        """Close the files."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors, self._sizes = [], {}


def encode(record: Record) -> bytes:
    """Return the line of a record."""
    text = json.dumps([record.number, record.kind, record.time, record.body], separators=(",", ":"))
    content = text.encode("ascii")
    return b"%s %s\n" % (_checksum(content), content)


def decode(line: bytes) -> Record | None:
    """Return the record of a line without its end, or None if the line is damaged."""
    checksum, _, content = line.partition(b" ")
    if checksum != _checksum(content):
        return None
    try:
        return Record(*json.loads(content))
    except (ValueError, TypeError):  # of a later release
        return None


def read(files: Iterable[Path]) -> dict[int, Record]:
    """Return all records by their numbers, each from a file in which its line is sound.

    A line without an end was being written when its process died, and is no record. A number that is missing between
    others stands for a record that is damaged in all files.
    """
    found: dict[int, Record] = {}
    for file in files:
        content = file.read_bytes() if file.is_file() else b""
        for line in content.split(b"\n")[:-1]:
            if record := decode(line):
                found[record.number] = record
    return dict(sorted(found.items()))


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest()[:_CHECKSUM].encode()


def _end_of_lines(file: Path) -> int:
    """Return the size of a file in bytes without a last line that has no end."""
    return file.read_bytes().rfind(b"\n") + 1
