"""Count what has not reached the store yet, and say how long a command waits for it."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from fmnist_exp.tracking.spool.folder import all_paths, peek, root

SEND_SECONDS = "FMNIST_EXP_SEND_SECONDS"  # environment variable
DEFAULT_SECONDS = 60.0


@dataclass(frozen=True)
class Left:
    """The records that were not sent."""

    folders: int
    records: int
    bytes: int
    unsaved: int = 0  # records that are in memory only, because the disk was full
    refused: int = 0  # records that the store will never take
    reason: str = ""  # the last error, or an empty text
    where: Path = field(default_factory=root)

    def __bool__(self) -> bool:
        return self.records > 0


def on_disk(address: str) -> Left:
    """Return what the folders of all processes hold for the store at this address, whether they live or not."""
    found = [folder for path in all_paths(root()) if (folder := peek(path, address))]
    waiting = [(records, size) for records, size in found if records]
    return Left(len(waiting), sum(records for records, _ in waiting), sum(size for _, size in waiting))


def patience() -> float:
    """Return the seconds that a command waits for the store at its end: FMNIST_EXP_SEND_SECONDS, or 60."""
    try:
        return float(os.environ.get(SEND_SECONDS, DEFAULT_SECONDS))
    except ValueError:
        return DEFAULT_SECONDS
