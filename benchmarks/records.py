"""Results that benchmarks keep as lines of JSON; the files are committed, so that several machines share the work."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read(file: Path) -> list[dict[str, Any]]:
    """Return the entries of a file, none if it does not exist. A line that a kill left incomplete is ignored."""
    entries = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return entries


def append(file: Path, *entries: Mapping[str, object]) -> None:
    """Add entries to a file at once, on lines of their own even if a kill left the last line incomplete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b") as stream:
        stream.seek(0, 2)
        if stream.tell():
            stream.seek(-1, 2)
            if stream.read(1) != b"\n":
                stream.write(b"\n")
        stream.write("".join(json.dumps(entry) + "\n" for entry in entries).encode())
