"""The senders of this process, one for each tracking store, and what happens to them when the process ends."""

import atexit
import os
import threading

import mlflow

from fmnist_exp.tracking.spool.sender import Sender

EXIT_SECONDS = 5.0  # a process that ends without waiting sends what it can until so long after the last success
JOIN_SECONDS = 2.0  # for a thread to finish its request


def sender() -> Sender:
    """Return the sender of this process for the tracking store in use."""
    return _sender(str(mlflow.get_tracking_uri()))


def _sender(uri: str) -> Sender:
    with _lock:
        key = os.getpid(), uri
        if not _senders:
            atexit.register(_leave)
        if key not in _senders:
            _senders[key] = Sender(uri, _sender)
        return _senders[key]


_senders: dict[tuple[int, str], Sender] = {}
_lock = threading.Lock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)  # a thread of the parent may hold it at that moment


def _leave() -> None:
    """Send what is left for a moment when the process ends, and leave the rest to the next command."""
    for (process, _), found in _senders.items():
        if process == os.getpid():
            if found.is_up:
                found.drain(EXIT_SECONDS)
            found.stop(JOIN_SECONDS)
