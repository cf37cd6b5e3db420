"""Python's fork server, from which it forks processes by the method `forkserver`: a private API."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import cast

import psutil

from fmnist_exp.compat.finding import attribute, find


def server() -> int | None:
    """Return the id of the process from which Python forks others by the method `forkserver`, or None."""
    found = find("python", "multiprocessing.forkserver", "_forkserver")
    return cast("int | None", attribute("python", found, "_forkserver_pid"))


def end() -> None:
    """End that process with all that it has forked, if it exists. Python starts another one when it needs it."""
    stop = find("python", "multiprocessing.forkserver", "_forkserver._stop")
    if pid := server():
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            try:
                process.suspend()  # it forks no more
                for child in process.children():  # Python forgets the children of a server that is gone
                    with suppress(psutil.NoSuchProcess):
                        child.send_signal(signal.SIGKILL)
            finally:
                process.send_signal(signal.SIGKILL)  # `_stop` alone waits until it has imported all that it should
    stop()
