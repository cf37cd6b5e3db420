"""Signal handlers that remember an interrupt, since Python may drop the KeyboardInterrupt that a signal raises.

Python drops it if it is raised in a destructor or in a library's callback. Long work calls `check` from time to time.
"""

import signal
import traceback
from types import FrameType
from typing import NoReturn

_pending = False


def install() -> None:
    """Let SIGINT and SIGTERM interrupt this process; `mlflow run` passes Ctrl-C on as SIGTERM.

    If SIGINT is ignored, it stays ignored: a shell without job control ignores it for commands in the background.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Handle a signal: remember it and raise KeyboardInterrupt."""
    global _pending
    _pending = True
    raise KeyboardInterrupt


def check() -> None:
    """Raise KeyboardInterrupt if a signal has arrived since the last call of `clear`."""
    if _pending:
        raise KeyboardInterrupt


def release(interrupt: KeyboardInterrupt) -> None:
    """Let go of what the interrupted calls held. Call this before the first access to a store after an interrupt.

    The traceback keeps the variables of these calls. One of them may be a cursor of SQLite that has not read all its
    rows, and SQLite lets nobody write until it has been closed.
    """
    traceback.clear_frames(interrupt.__traceback__)


def clear(interrupt: KeyboardInterrupt | None = None) -> None:
    """Forget all earlier signals, and release their KeyboardInterrupt if it is given, because it has been handled."""
    global _pending
    _pending = False
    if interrupt is not None:
        release(interrupt)
