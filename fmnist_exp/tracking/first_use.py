"""Let one process at a time make first use of a SQLite database, and create MLflow's database whole or not at all.

MLflow and Optuna create and upgrade their tables when a process opens a database. If several processes do so at the
same moment, most of them fail. MLflow's database stays unusable if its creation is cut short, by a kill or a full disk.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy
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


def create(address: str, make_tables: Callable[[sqlalchemy.Engine], None]) -> None:
    """Create a SQLite database that does not exist yet: `make_tables` fills a draft, which then gets its name.

    The caller must hold the lock of `alone`.
    """
    file = _file(address)
    if file is None or (file.exists() and file.stat().st_size):
        return
    draft = file.absolute().with_name(f".{file.name}.draft")
    journal = draft.with_name(f"{draft.name}-journal")
    engine = sqlalchemy.create_engine(sqlalchemy.URL.create("sqlite", database=str(draft)))
    try:
        for left in (draft, journal):  # by a process that was killed
            left.unlink(missing_ok=True)
        make_tables(engine)
        engine.dispose()
        os.replace(draft, file)
    finally:
        engine.dispose()
        for left in (draft, journal):
            left.unlink(missing_ok=True)


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
