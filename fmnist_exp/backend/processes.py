"""Identify a process beyond its number, so that another process, also one on another machine, can tell if it lives."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Process:
    """A process of some machine."""

    host: str
    machine: str  # a boot and its process namespace: where `pid` has a meaning
    pid: int
    born: float  # when the process started, seconds since the epoch: pids are used again

    def is_gone(self) -> bool | None:
        """Return True if the process has ended, False if it runs, and None if it belongs to another machine."""
        if self.machine != machine():
            return None
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:  # in a container nobody may collect it
                return True
            return bool(abs(process.create_time() - self.born) > 1)
        except psutil.NoSuchProcess:
            return True


def this() -> Process:
    """Return this process."""
    return Process(platform.node(), machine(), os.getpid(), psutil.Process().create_time())


@cache
def machine() -> str:
    """Return a name for this boot of this machine and its process namespace; containers of one host have several."""
    parts = [platform.node()]
    with suppress(OSError):  # Linux only
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)
