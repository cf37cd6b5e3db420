"""The SHA-256 of every file in a model's folder, listed when a version is registered and verified before each load."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from fmnist_exp.errors import WorkError

FILE = "checksums.json"  # in the model's folder: file → digest
WRITTEN_LATER = (FILE, "registered_model_meta")  # MLflow writes the second one when it loads a version


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256, in hexadecimal, of every file of the model by its path inside `folder`."""
    files = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return {str(file.as_posix()): _digest(folder / file) for file in sorted(files) if _belongs(file)}


def to_json(found: Mapping[str, str]) -> str:
    """Return the content of `checksums.json`."""
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def verify(folder: Path, registered: str | None) -> None:
    """Raise WorkError if a file in `folder` was changed, added or removed, or if the version has no checksums.

    `registered` is the version's tag `sha256`: the digest of `checksums.json`, or, if an earlier release wrote it, the
    whole content.
    """
    expected = _expected(folder, registered or "")
    found = checksums(folder)
    changed = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if changed:
        raise WorkError(f"files of the model are not those that were registered: {', '.join(changed)}")


def _expected(folder: Path, registered: str) -> dict[str, str]:
    listed = folder / FILE
    try:
        if registered and not registered.startswith("{"):
            if not listed.is_file() or _digest(listed) != registered:
                raise WorkError(f"files of the model are not those that were registered: {FILE}")
            registered = listed.read_text(encoding="utf-8")
        expected: dict[str, str] = json.loads(registered)
    except ValueError as error:  # without the tag, too
        raise WorkError("the version has no checksums (tag sha256), so its files cannot be trusted") from error
    return expected


def _belongs(file: Path) -> bool:
    return str(file) not in WRITTEN_LATER and "__pycache__" not in file.parts


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
