"""The folder in which a process keeps what it writes about one run: its records, their files, and what was sent.

A folder has one writer ever. It is locked while its writer lives; afterwards any process may lock it and send the rest.
"""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from fmnist_exp.tracking.names import Tag
from fmnist_exp.tracking.spool import records
from fmnist_exp.tracking.spool.records import HEAD, Log, Record

RECORDS = "records", "records.copy"
SPOOL = "FMNIST_EXP_SPOOL"  # environment variable
SENT, FILES, LOCK = "sent", "files", "lock"
DELIVERED, REFUSED = "sent", "refused"  # kinds of the records in `sent`


@dataclass(frozen=True)
class RunHead:
    """The facts about a run that every writer of it needs without asking the store."""

    id: str  # the store's, or a local one
    experiment_id: str  # empty if the run was started without asking the store
    kind: str
    user: str
    git_commit: str  # empty if unknown
    params: frozenset[str] = frozenset()  # names of the params that the run has from its start

    def creation(self) -> dict[str, Any]:
        """Return the body of a record that creates the run, for a folder in which the real one is damaged."""
        tags = {Tag.KIND: self.kind, Tag.USER: self.user, Tag.GIT_COMMIT: self.git_commit}
        known = {str(tag): value for tag, value in tags.items() if value}
        about = {"experiment_id": self.experiment_id, "experiment_name": "", "name": self.kind}
        return {**about, "tags": known, "start_time": now()}


class Folder:
    """One folder of records, which this process has locked."""

    def __init__(self, path: Path, head: RunHead, address: str, first: int, lock: FileLock) -> None:
        self.path = path
        self.head = head
        self.address = address  # of the store, without secrets
        self._first = first  # number of the first record
        self._lock = lock
        self._log: Log | None = None
        self._sent: Log | None = None

    @classmethod
    def create(cls, head: RunHead, address: str, first: int) -> Self:
        """Make a new folder below the folder of all spools, for records from number `first` on. Raises OSError."""
        path = root() / uuid.uuid4().hex
        _make(path)
        lock = FileLock(path / LOCK, thread_local=False)
        folder = cls(path, head, address, first, lock)
        try:
            lock.acquire(timeout=0)
            folder.begin()
        except OSError:  # of a full disk; without its head, nobody could send or read the folder
            folder.delete()
            raise
        return folder

    @classmethod
    def reopen(cls, path: Path) -> Self | None:
        """Lock a folder whose writer is gone; return None if its writer lives, or it is being sent already.

        Raises ValueError if the folder's head is damaged in both copies, so that nothing can be sent.
        """
        lock = FileLock(path / LOCK, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        found = records.read(path / name for name in RECORDS).get(0)
        if found is None:
            lock.release()
            raise ValueError(f"{path} does not say which run it is about; the first line of its records is damaged")
        try:
            described = dict(found.body)
            address, first = str(described.pop("address")), int(described.pop("first"))
            head = RunHead(**{**described, "params": frozenset(described["params"])})
        except (KeyError, TypeError, ValueError) as error:
            lock.release()
            raise ValueError(f"{path} was written by another release of fmnist-exp, which can send it") from error
        return cls(path, head, address, first, lock)

    def begin(self) -> None:
        """Write the head of a new folder. Raises OSError."""
        described = {**asdict(self.head), "params": sorted(self.head.params)}
        described |= {"address": self.address, "first": self._first}
        self.append(Record(0, HEAD, now(), described))

    def append(self, record: Record) -> None:
        """Write a record. Raises OSError."""
        if not self._lock.is_locked:
            raise OSError(f"{self.path} is closed")
        if self._log is None:
            self._log = Log(*(self.path / name for name in RECORDS))
        self._log.append(record)

    def keep(self, number: int, files: Path) -> dict[str, str]:
        """Move a folder of files to where those of a record are; return their checksums by path."""
        target = self.files(number)
        target.parent.mkdir(exist_ok=True)
        try:
            shutil.move(files, target)
        except OSError:
            shutil.rmtree(target, ignore_errors=True)
            raise
        return checksums(target)

    def files(self, number: int) -> Path:
        """Return the folder of a record's files, which is no link: a folder from elsewhere may have some."""
        found = self.path / FILES / str(number)
        return found if not (found.is_symlink() or found.parent.is_symlink()) else self.path / "missing"

    def settle(self, number: int, kind: str, **body: Any) -> None:
        """Remember what became of a record. If the disk is full, the store will be asked instead."""
        with suppress(OSError):
            if self._sent is None:
                self._sent = Log(self.path / SENT)
            self._sent.append(Record(number, kind, now(), body))
            if kind == DELIVERED:
                shutil.rmtree(self.files(number), ignore_errors=True)

    def read(self) -> tuple[list[Record], dict[int, Record], list[int]]:
        """Return the records, what became of those that were sent, and the numbers of damaged records."""
        found = records.read(self.path / name for name in RECORDS)
        settled = records.read([self.path / SENT])
        found.pop(0)
        missing = sorted(set(range(self._first, max([0, *found, *settled]) + 1)) - found.keys() - settled.keys())
        return list(found.values()), settled, missing

    def rest(self) -> None:
        """Close the files until something is written again: thousands of runs may wait for a store that is away."""
        for opened in (self._log, self._sent):
            if opened is not None:
                opened.close()
        self._log = self._sent = None

    def release(self) -> None:
        """Leave the folder to other processes."""
        self.rest()
        self._lock.release()

    def delete(self) -> None:
        """Delete the folder, and the folder of all spools if it is empty now."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()
        with suppress(OSError):
            self.path.parent.rmdir()


def root() -> Path:
    """Return the folder of all spools: FMNIST_EXP_SPOOL, or `spool` in the working folder."""
    return Path(os.environ.get(SPOOL) or "spool").absolute()


def all_paths(parent: Path) -> list[Path]:
    """Return the folders of records below the folder of all spools, the oldest first; or the folder itself."""
    if (parent / LOCK).is_file():
        return [parent]
    found = {path.parent: path.stat().st_mtime for path in parent.glob(f"*/{LOCK}")}  # nothing is written to a lock
    return sorted(found, key=lambda path: (found[path], path))


def heads() -> set[str]:
    """Return the ids of the runs that the folders of this machine's spool are about."""
    found = (records.read(path / name for name in RECORDS).get(0) for path in all_paths(root()))
    return {str(head.body["id"]) for head in found if head is not None}


def model_files(local: str) -> Path | None:
    """Return the files of a logged model that was not sent yet, or None; any process may have written them."""
    for path in all_paths(root()):
        for record in records.read(path / name for name in RECORDS).values():
            files = path / FILES / str(record.number)
            if record.kind == "model" and record.body["id"] == local and files.is_dir():
                return files
    return None


def peek(path: Path, address: str) -> tuple[int, int] | None:
    """Return the number of records of a folder that wait, and its bytes; None if it is for another store."""
    found = records.read(path / name for name in RECORDS)
    if 0 not in found or found[0].body["address"] != address:
        return None
    settled = records.read([path / SENT])
    return len(found.keys() - {0} - settled.keys()), size(path)


def checksums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder by its path."""
    return {file.relative_to(folder).as_posix(): checksum(file) for file in _plain_files(folder)}


def checksum(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal. Raises OSError."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def size(folder: Path) -> int:
    """Return the size of all files below a folder in bytes."""
    return sum(file.stat().st_size for file in _plain_files(folder))


def now() -> int:
    """Return the time in milliseconds since the epoch, as MLflow writes it."""
    return int(time.time() * 1000)


def _plain_files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _make(path: Path) -> None:
    """Make a folder and its parent, which another process may delete at the same moment because it is empty."""
    for _ in range(10):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            path.mkdir()
            return
    path.mkdir()
