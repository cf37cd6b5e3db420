"""Signal handlers for Ctrl-C and SIGTERM: the first signal interrupts, and those that follow let the work be closed.

Signals come in twos: `mlflow run` passes Ctrl-C on as SIGTERM, and people press a key twice. A handler also remembers
the interrupt, since Python may drop the KeyboardInterrupt that a signal raises, in a destructor or in a library's
callback. Long work calls `check` from time to time.
"""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_SECONDS = 5.0  # for closing what was interrupted; a signal that comes later interrupts that, too
DROPPED_SECONDS = 0.01  # until a dropped interrupt is raised again, when the destructor that dropped it has ended

_pending = False
_grace = 0.0  # end of the time in which signals are only remembered, by time.monotonic
_repeating: threading.Timer | None = None  # raises a dropped interrupt again


def install() -> None:
    """Let SIGINT and SIGTERM interrupt this process; `mlflow run` passes Ctrl-C on as SIGTERM.

    If SIGINT is ignored, it stays ignored: a shell without job control ignores it for commands in the background.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal: remember it, and raise KeyboardInterrupt unless an earlier interrupt is being handled."""
    global _pending, _grace
    _pending = True
    if time.monotonic() >= _grace:
        _grace = time.monotonic() + GRACE_SECONDS
        raise KeyboardInterrupt


def pending() -> bool:
    """Return True if a signal has arrived since the last call of `clear`."""
    return _pending


def check() -> None:
    """Raise KeyboardInterrupt if a signal has arrived since the last call of `clear`."""
    if _pending:
        raise KeyboardInterrupt


@contextmanager
def held() -> Iterator[None]:
    """Let the block end before a signal interrupts, unless the block takes longer than GRACE_SECONDS."""
    global _grace
    before, known = _grace, _pending
    _grace = max(_grace, time.monotonic() + GRACE_SECONDS)
    try:
        yield
    finally:
        _grace = before
    if _pending and not known:
        _grace = time.monotonic() + GRACE_SECONDS
        raise KeyboardInterrupt


def repeat() -> None:
    """Interrupt again in a moment, because Python has dropped the KeyboardInterrupt."""

    def again() -> None:
        global _grace
        if _pending and signal.getsignal(signal.SIGTERM) is interrupt:  # by default it would kill this process
            _grace = 0.0
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)  # which also ends its waiting

    global _repeating
    _repeating = threading.Timer(DROPPED_SECONDS, again)
    _repeating.start()


def release(interrupt: KeyboardInterrupt) -> None:
    """Let go of what the interrupted calls held. Call this before the first access to a store after an interrupt.

    The traceback keeps the variables of these calls. One of them may be a cursor of SQLite that has not read all its
    rows, and SQLite lets nobody write until it has been closed.
    """
    traceback.clear_frames(interrupt.__traceback__)


def clear(interrupt: KeyboardInterrupt | None = None) -> None:
    """Forget all earlier signals, and release their KeyboardInterrupt if it is given, because it has been handled."""
    global _pending, _grace
    _pending, _grace = False, 0.0
    if _repeating is not None:
        _repeating.cancel()  # it would take the next signal, which interrupts by itself, for the one that was dropped
    if interrupt is not None:
        release(interrupt)


def leave_at_once(code: int) -> None:
    """Let a signal end this process at once with this exit code: the work is done, and only Python's own end is left.

    Python would report an interrupt of its end with a traceback for each of its functions that it interrupts.
    """
    sys.stdout.flush()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is interrupt:
            signal.signal(number, lambda *_: os._exit(code))
