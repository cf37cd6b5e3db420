"""This machine: its name, and the cores and memory that this process may use."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path


def host() -> str:
    """This machine's name."""
    return platform.node()


def cores() -> int:
    """The cores that this process may use, by its affinity and its control group's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):  # "max 100000", or so many microseconds in each 100,000
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, max(1, int(quota) // int(period)))
    return count


def core_set() -> str:
    """Names the cores that this process may use; processes for which it is the same share them."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
    return " ".join([host(), *map(str, sorted(usable))])


def memory() -> int:
    """Bytes of memory that this process and its children may use, by the machine and the control group."""
    import psutil

    limit = int(psutil.virtual_memory().total)
    with suppress(OSError, ValueError):  # "max", or a number
        limit = min(limit, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return limit
