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
            process.suspend()  # it forks no more; `_stop` alone waits until the server has imported all that it should
            for each in [*process.children(), process]:  # Python forgets the children of a server that is gone
                each.send_signal(signal.SIGKILL)
    stop()
