"""Signal handlers that remember an interrupt, since Python may drop the KeyboardInterrupt that a signal raises.

Python drops it if it is raised in a destructor or in a library's callback. Long work calls `check` from time to time.
"""

import signal
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


def clear() -> None:
    """Forget all earlier signals. Call this when their KeyboardInterrupt has been handled."""
    global _pending
    _pending = False
