"""TODO part of connection: The tracking store: reached, checked, read. What is written goes through tracking.py."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


def without_secrets(text: str) -> str:
    """The text with the user and password of every address in it blanked out."""
    return re.sub(r"(?<=://)[^/\s]+@", "***@", text)


def first_line(error: BaseException) -> str:
    """What an error says, in one line and without secrets."""
    text = str(error).strip()
    return without_secrets(text.splitlines()[0] if text else type(error).__name__)
