"""The SHA-256 of every file in a model's folder, listed when the model is logged and verified before each load."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from fmnist_exp.errors import WorkError

FILE = "checksums.json"  # in the model's folder: file → digest
DIGEST = re.compile(r"[0-9a-f]{64}")
LONGEST = 2**16  # characters of a list of checksums, which has about 1,500


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256, in hexadecimal, of every file of the model by its path inside `folder`.

    Raises WorkError if something in the folder is not a plain file: a link could lead anywhere, and byte code in a
    `__pycache__` would run in place of the source code beside it.
    """
    return {path: _digest(folder / path) for path in sorted(plain_files(folder)) if path != FILE}


def plain_files(folder: Path) -> set[str]:
    """Return the paths of all files inside `folder`. Raises WorkError for links, devices and byte code."""
    found = set()
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise WorkError(f"{name} is not a plain file")
            if path.name == "__pycache__" or path.suffix == ".pyc":
                raise WorkError(f"{name} is byte code, which fmnist-exp does not store")
            if path.is_file():
                found.add(name)
    return found


def to_json(found: Mapping[str, str]) -> str:
    """Return the content of `checksums.json`."""
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def digest(folder: Path) -> str:
    """Return the digest of the list of checksums, which vouches for every file in `folder`."""
    return hashlib.sha256(to_json(checksums(folder)).encode()).hexdigest()


def write(folder: Path) -> str:
    """Write `checksums.json` into a model's folder, and return its digest."""
    (folder / FILE).write_bytes(to_json(checksums(folder)).encode())
    return _digest(folder / FILE)


def verify(folder: Path, registered: str | None) -> None:
    """Raise WorkError if a file in `folder` was changed, added or removed, or if there are no checksums to compare.

    `registered` is the tag `sha256` of a version, or `fmnist.sha256` of a logged model: the digest of `checksums.json`,
    or, if an earlier release registered the version, the whole content.
    """
    expected = _expected(folder, registered or "")
    found = checksums(folder)
    changed = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if changed:
        raise WorkError(f"files of the model are not those that were registered: {', '.join(changed)}")


def _expected(folder: Path, registered: str) -> dict[str, str]:
    listed = folder / FILE
    if DIGEST.fullmatch(registered):
        if not listed.is_file() or listed.stat().st_size > LONGEST or _digest(listed) != registered:
            raise WorkError(f"files of the model are not those that were registered: {FILE}")
        registered = listed.read_text(encoding="utf-8")
    try:
        expected = json.loads(registered if len(registered) <= LONGEST else "")
    except (ValueError, RecursionError):  # without the tag, too
        expected = None
    if not (isinstance(expected, dict) and all(isinstance(digest, str) for digest in expected.values())):
        raise WorkError("it has no valid checksums (tag sha256), so its files cannot be trusted")
    return expected


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
