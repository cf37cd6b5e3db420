"""The kinds of records, and the part of the sender that a spool needs."""

from __future__ import annotations

import threading
from typing import Any, Literal, Protocol

Kind = Literal[
    "create_run",
    "batch",
    "inputs",
    "outputs",
    "artifacts",
    "delete_artifacts",
    "model",
    "register",
    "status",
]


class Carrier(Protocol):
    """The part of the sender that a spool needs."""

    address: str
    changed: threading.Condition

    def hopeful(self, spool: Any) -> bool:
        """Return True if it is worth waiting for the delivery of a record."""

    def writes(self, run_id: str) -> bool:
        """Return True if this process has records of a run."""

    def wake(self, spool: Any) -> None:
        """Send what is waiting in a spool."""

    def here(self) -> Carrier:
        """Return the sender of this process, which may be a fork of the one that made the spool."""
