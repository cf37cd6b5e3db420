"""The two errors with which a command fails, each with its exit code, and the check for a full disk."""

import errno

FULL_DISK = "No space left on device", "database or disk is full", "could not extend file"  # system, SQLite, PostgreSQL


class RequestError(ValueError):
    """The request was wrong. It is raised before anything is written; the exit code is 2."""


class WorkError(RuntimeError):
    """The request was right, but the work failed. The run is closed as FAILED; the exit code is 1."""


def is_full_disk(error: BaseException | None) -> bool:
    """Return True if a full disk caused the error, however many libraries have wrapped it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text = str(error)
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(words in text for words in FULL_DISK):
            return True
        error = error.__cause__ or error.__context__
    return False
