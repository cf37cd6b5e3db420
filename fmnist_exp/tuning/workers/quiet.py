"""Keep what Dask says and sets to itself: its messages, and the variables of its workers."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLES = ("OMP_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_")  # of the workers; Dask sets them in the driver too


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Dask's messages out of the log, since the driver reports on workers, and its settings out of os.environ."""
    log = logging.getLogger("distributed")
    before = log.handlers, log.propagate
    log.handlers, log.propagate = [logging.NullHandler()], False
    logging.getLogger("asyncio").addFilter(_is_not_of_dask)  # for good: asyncio logs when the collector runs
    with environment_kept():
        try:
            yield
        finally:
            log.handlers, log.propagate = before


@contextmanager
def environment_kept() -> Iterator[None]:
    """Give the variables that Dask sets for its workers their values back after the block."""
    before = {name: os.environ.get(name) for name in VARIABLES}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _is_not_of_dask(record: logging.LogRecord) -> bool:
    """Return False for an error raised inside Dask, for example by a request that waited when the scheduler closed."""
    if f"{os.sep}distributed{os.sep}" in record.getMessage():  # the coroutine's file; its error may have no traceback
        return False
    steps = traceback.walk_tb(record.exc_info[2] if record.exc_info else None)
    return not any(frame.f_globals.get("__name__", "").startswith("distributed.") for frame, _ in steps)
