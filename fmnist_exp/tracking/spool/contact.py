"""Remember whether a store answers, and when to ask it again."""

import logging
import random
import time

from fmnist_exp.tracking.spool import folder as folders

FIRST_PAUSE, LONGEST_PAUSE, WAITING_PAUSE = 0.2, 10.0, 1.0  # seconds; the last is the longest while a command waits
AWAY = 2  # failures in a row, after which the store counts as away; a time-out alone counts as that many

log = logging.getLogger(__name__)


class Contact:
    """The state of a store, as the answers to the requests of this process show it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.is_up = True  # as far as is known
        self.reason = ""  # the error of the last failure
        self.retry_at = 0.0  # on time.monotonic()
        self.waiting = 0  # callers that want everything sent soon
        self._failures = 0  # in a row

    def answered(self) -> bool:
        """Note an answer of any kind; return True if the store was away before."""
        back = not self.is_up
        self.is_up, self._failures, self.retry_at = True, 0, 0.0
        if back:
            log.warning(f"the tracking store {self.address} answers again; what was logged meanwhile is being sent")
        return back

    def failed(self, reason: str, weight: int) -> None:
        """Note that no clear answer came, and why; `weight` is the number of failures that this one counts as."""
        self.reason = reason
        self._failures += weight
        self.retry_at = self.next_attempt(self._failures)
        if self._failures >= AWAY and self.is_up:
            self.is_up = False
            log.warning(
                f"the tracking store {self.address} does not answer ({self.reason}); the work goes on, and what it"
                f" logs is kept in {folders.root()} until the store is back"
            )

    def next_attempt(self, failures: int) -> float:
        """Return when to try again after this number of failures in a row, on time.monotonic()."""
        longest = WAITING_PAUSE if self.waiting else LONGEST_PAUSE
        return time.monotonic() + min(FIRST_PAUSE * 2.0 ** min(failures - 1, 10), longest) * random.uniform(0.8, 1.2)
