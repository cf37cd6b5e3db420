"""SHA-256 of every file of a model's folder: taken when a version is registered, checked before it is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from fmnist_exp.errors import WorkError

TAG = "sha256"  # of a registered version: file → digest, as JSON
WRITTEN_LATER = ("registered_model_meta",)  # MLflow puts it beside a version's files when it loads them


def checksums(folder: Path) -> dict[str, str]:
    """Path inside `folder` → SHA-256 in hexadecimal, for every file that belongs to the model."""
    files = (file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    return {str(file.as_posix()): _digest(folder / file) for file in sorted(files) if _belongs(file)}


def as_tag(found: Mapping[str, str]) -> dict[str, str]:
    """The tag that a version carries."""
    return {TAG: json.dumps(found, sort_keys=True, separators=(",", ":"))}


def verify(folder: Path, tags: Mapping[str, str]) -> None:
    """Compare the files of `folder` with the tags of its version.

    Raises:
        WorkError: a file changed, is missing or is new, or the version has no checksums.
    """
    try:
        expected = json.loads(tags[TAG])
    except (KeyError, ValueError) as error:
        raise WorkError(f"the version has no checksums (tag {TAG}), so its files cannot be trusted") from error
    found = checksums(folder)
    changed = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if changed:
        raise WorkError(f"files of the model are not those that were registered: {', '.join(changed)}")


def _belongs(file: Path) -> bool:
    return file.name not in WRITTEN_LATER and "__pycache__" not in file.parts


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
