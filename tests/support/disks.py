"""Small disks that are really full: file systems in memory, which only root can mount."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

BLOCK = 4096


@dataclass(frozen=True)
class Disk:
    """A small file system."""

    folder: Path

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"

    def fill(self, leave: int = 0) -> None:
        """Fill the disk but for `leave` bytes."""
        free = os.statvfs(self.folder)
        blocks = max(0, free.f_bavail - leave // BLOCK)
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:
            for _ in range(blocks):
                file.write(bytes(BLOCK))

    def make_room(self) -> None:
        self._filler.unlink(missing_ok=True)


@contextlib.contextmanager
def small(folder: Path, megabytes: int = 64) -> Iterator[Disk]:
    """Mount a small disk at a folder until the block ends; skip the test if that is not permitted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"only root can mount a small disk: {mounted.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
