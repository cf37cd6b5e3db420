"""The two ways in which a command fails; the command line turns each into an exit code. And the cause both share."""

import errno

FULL_DISK = "No space left on device", "database or disk is full", "could not extend file"  # system, SQLite, PostgreSQL


class RequestError(ValueError):
    """The request was wrong. Raised before anything is written; exit code 2."""


class WorkError(RuntimeError):
    """The request was right and the work failed. The run is closed as FAILED; exit code 1."""


def is_full_disk(error: BaseException | None) -> bool:
    """Return True if a full disk caused the error, however many libraries have wrapped it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text = str(error)
        if getattr(error, "errno", None) == errno.ENOSPC or any(words in text for words in FULL_DISK):
            return True
        error = error.__cause__ or error.__context__
    return False
