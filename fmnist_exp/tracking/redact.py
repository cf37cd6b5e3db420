"""Make texts safe to show and to store: remove the passwords in addresses, and shorten errors to one line."""

import re


def without_secrets(text: str) -> str:
    """Return the text with the user and password of every address in it replaced by `***`."""
    return re.sub(r"(?<=://)[^/\s]+@", "***@", text)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has none, without secrets."""
    text = str(error).strip()
    return without_secrets(text.splitlines()[0] if text else type(error).__name__)
