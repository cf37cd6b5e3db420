"""Memory and open files of the processes that live long, sampled while the soak runs."""

import statistics
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

PAUSE_SECONDS = 2.0
WARM_SECONDS = 240.0  # a command has started, libraries are loaded and caches filled, and trials have begun
LIFE_SECONDS = 480.0  # shorter lives say nothing
GROWTH = 1.10  # of memory, from the first quarter of a life after the warm-up to its third
SLACK_MIB = 40
MORE_FILES = 12


@dataclass(frozen=True)
class Life:
    """The samples of one process."""

    role: str
    pid: int
    mib: tuple[float, ...]
    files: tuple[int, ...]

    @property
    def seconds(self) -> float:
        """The time during which it was watched."""
        return len(self.mib) * PAUSE_SECONDS

    def growth(self) -> tuple[float, float, float, float]:
        """Return the medians of the first quarter after the warm-up and of the third: MiB, then open files.

        In the last quarter a driver may be registering a model, for which it loads more libraries.
        """
        mib, files = (values[int(WARM_SECONDS / PAUSE_SECONDS) :] for values in (self.mib, self.files))
        part = max(1, len(mib) // 4)
        ends = [
            (statistics.median(values[:part]), statistics.median(values[2 * part : 3 * part]))
            for values in (mib, files)
        ]
        return (*ends[0], *ends[1])

    @property
    def is_flat(self) -> bool:
        """True if neither memory nor open files grew beyond the limits of this module."""
        before, after, files_before, files_after = self.growth()
        return after <= before * GROWTH + SLACK_MIB and files_after <= files_before + MORE_FILES


class Sampler:
    """A thread that looks at the processes every two seconds.

    Args:
        processes: returns the processes to look at: pairs of a role and a pid.
    """

    def __init__(self, processes: Callable[[], Iterable[tuple[str, int]]]) -> None:
        self._processes = processes
        self._samples: dict[tuple[str, int], list[tuple[float, int]]] = defaultdict(list)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="sampler")
        self._thread.start()

    def close(self) -> list[Life]:
        """Stop, and return the lives that were long enough to be judged."""
        self._over.set()
        self._thread.join()
        lives = [
            Life(role, pid, *map(tuple, zip(*samples, strict=True))) for (role, pid), samples in self._samples.items()
        ]
        return [life for life in lives if life.seconds >= LIFE_SECONDS]

    def _run(self) -> None:
        while not self._over.wait(PAUSE_SECONDS):
            for role, pid in self._processes():
                try:
                    process = psutil.Process(pid)
                    with process.oneshot():
                        self._samples[role, pid].append((process.memory_info().rss / 2**20, process.num_fds()))
                except psutil.Error:
                    continue
