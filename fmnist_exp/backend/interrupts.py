"""Ctrl-C that does not get lost: Python drops a KeyboardInterrupt raised within a destructor or a library's callback.

The signal raises at once, as Python's own handler does, and is remembered; long work asks now and then with `check`.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

_pending = False


def heed() -> None:
    """Have SIGTERM, by which `mlflow run` passes Ctrl-C on, and SIGINT interrupt this process.

    A shell without job control has commands in the background ignore SIGINT: that stays so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Handle the signal."""
    global _pending
    _pending = True
    raise KeyboardInterrupt


def check() -> None:
    """Raise KeyboardInterrupt if one came that nobody has handled."""
    if _pending:
        raise KeyboardInterrupt


def handled() -> None:
    """What came so far is done with."""
    global _pending
    _pending = False
