"""Runs whose process is gone: give them another parent, close them, or discard them.

The records go to the spool of a run that this process writes. A run that a user has deleted is left alone.
"""

from collections.abc import Mapping

from fmnist_exp.tracking.names import Tag
from fmnist_exp.tracking.writing import Run, Status, now, texts


def reattach(parent: Run, run_id: str) -> None:
    """Make a run the child of `parent`."""
    parent.write_about(run_id, "batch", {"tags": {str(Tag.PARENT): parent.id}})


def close(by: Run, run_id: str, status: Status, reason: str = "", tags: Mapping[str, str] | None = None) -> None:
    """End a run with a status and, if given, a reason (the tag `fmnist.error`) and further tags."""
    by.write_about(run_id, "batch", {"tags": texts({**(tags or {}), **({Tag.ERROR: reason} if reason else {})})})
    by.write_about(run_id, "status", {"status": status, "end_time": now()})


def discard(by: Run, run_id: str) -> None:
    """Delete a run whose execution was given up, and the models that it logged; close it if the user may not delete.

    If the execution is still alive, it can no longer write into the run.
    """
    by.write_about(run_id, "status", {"status": "DELETED", "end_time": now()})
