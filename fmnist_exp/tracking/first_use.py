"""Let one process at a time make first use of a SQLite database.

MLflow and Optuna create and upgrade their tables when a process opens a database. If several processes do so at the
same moment, most of them fail, and MLflow's database may stay unusable.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError


@contextmanager
def alone(address: str) -> Iterator[None]:
    """Hold the lock of the database at `address` during the block; the file of the lock stays beside it.

    Databases on servers and in memory have no lock. Raises OSError if the folder of the database cannot be written.
    """
    if file := _file(address):
        with FileLock(file.absolute().with_name(f".{file.name}.lock"), is_singleton=True):  # a thread may nest blocks
            yield
    else:
        yield


def _file(address: str) -> Path | None:
    """Return the file of a SQLite database, or None if there can be none: `filelock` would create its folder."""
    try:
        url = make_url(address)
    except ArgumentError:
        return None
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    file = Path(str(url.database))
    return file if file.parent.is_dir() else None
