"""Send what the spools of this process hold: in order per run, with growing pauses while the store is away."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from mlflow import MlflowClient

from fmnist_exp.tracking import store
from fmnist_exp.tracking.redact import first_line
from fmnist_exp.tracking.spool import ids
from fmnist_exp.tracking.spool.attempt import UPLOADS, GoneError, RefusedError, attempt, is_timeout, reason_of
from fmnist_exp.tracking.spool.contact import AWAY, Contact
from fmnist_exp.tracking.spool.delivery import DamagedError
from fmnist_exp.tracking.spool.folder import RunHead
from fmnist_exp.tracking.spool.left import Left, patience
from fmnist_exp.tracking.spool.queue import Spool
from fmnist_exp.tracking.spool.records import Record

IDLE_SECONDS = 2.0  # without work, after which a thread ends

log = logging.getLogger(__name__)


class Sender:
    """The threads of this process that send records to one store. They start when there is work, and end without."""

    def __init__(self, uri: str, here: Callable[[str], "Sender"]) -> None:
        self.uri = uri
        self._here = here  # returns the sender of the process that calls it
        self.address = store.address()
        self.changed = threading.Condition(threading.RLock())
        self.offline = False  # nothing is sent, and the store is asked nothing
        self._contact = Contact(self.address)
        self.refused = 0
        self._last_success = 0.0  # on time.monotonic()
        self._spools: list[Spool] = []  # the one that waits longest comes first
        self._threads: dict[bool, threading.Thread] = {}
        self._stopped = False

    def open(self, client: MlflowClient, head: RunHead) -> Spool:
        """Return this process' spool of a run; call its `close` when nothing more is to be written."""
        with self.changed:
            for spool in self._spools:
                if head.id in (spool.head.id, spool.run_id) and not spool.reopened:
                    spool.users += 1
                    return spool
            spool = Spool(head, self)
            self._spools.append(spool)
            return spool

    def writes(self, run_id: str) -> bool:
        """Return True if this process has records of a run."""
        return any(spool.head.id == run_id for spool in self._spools)

    @property
    def is_up(self) -> bool:
        """Return True unless the last requests to the store got no answer."""
        return self._contact.is_up

    def here(self) -> "Sender":
        """Return the sender of a fork, which sends nothing: connections to the store do not survive a fork."""
        found = self._here(self.uri)
        found.offline = True
        return found

    def hopeful(self, spool: Spool) -> bool:
        """Return True if the first record of a spool is likely to be sent soon."""
        gone = self.offline or self._stopped or spool.stuck
        return self.is_up and not (gone or spool.blocked or spool.failures >= AWAY)

    def drain(self, seconds: float | None = None) -> Left:
        """Wait until everything is sent, and return what is left.

        Args:
            seconds: How long to wait after the last success; by default FMNIST_EXP_SEND_SECONDS, or 60.
        """
        seconds = patience() if seconds is None else seconds
        began = time.monotonic()
        with self.changed:
            self._contact.waiting += 1
            try:
                while not self.offline and any(spool.pending and not spool.stuck for spool in self._spools):
                    remaining = max(began, self._last_success) + seconds - time.monotonic()
                    if remaining <= 0:
                        break
                    self.wake()
                    self.changed.wait(min(remaining, 0.5))
            finally:
                self._contact.waiting -= 1
            return self.left()

    def send(self, spools: Sequence[Spool], seconds: float) -> None:
        """Send what folders hold whose writers are gone, and leave what cannot be sent to other processes.

        Args:
            spools: The folders' records.
            seconds: How long to wait for a store that is away after the last success.
        """
        began = time.monotonic()
        with self.changed:
            self._spools.extend(spools)
            while waiting := [spool for spool in spools if spool.pending and not (spool.blocked or spool.stuck)]:
                remaining = max(began, self._last_success) + seconds - time.monotonic()
                if self.offline or (remaining <= 0 and not any(map(self.hopeful, waiting))):
                    break
                self.wake()
                self.changed.wait(0.5)
            for spool in spools:
                if not spool.busy and spool in self._spools:
                    self._spools.remove(spool)
                    spool.leave()

    def left(self) -> Left:
        """Return what is not sent at this moment."""
        with self.changed:
            waiting = [spool for spool in self._spools if spool.pending]
            counts = len(waiting), sum(len(spool.pending) for spool in waiting), sum(spool.size() for spool in waiting)
            unsaved = sum(spool.unsaved for spool in waiting)
            reasons = (spool.reason for spool in waiting if spool.reason)  # only here is the reason of an upload shown
            return Left(*counts, unsaved, self.refused, next(reasons, self._contact.reason))

    def wake(self, spool: Spool | None = None) -> None:
        """Send what is waiting, for example in `spool`, unless this process is offline."""
        with self.changed:
            if spool is not None and spool not in self._spools:
                self._spools.append(spool)
            for spool in [spool for spool in self._spools if spool.is_over or (self.offline and spool.users <= 0)]:
                self._spools.remove(spool)
                spool.leave()
            if not self.offline and any(spool.pending for spool in self._spools):
                self._start_threads()
            self.changed.notify_all()

    def stop(self, seconds: float) -> None:
        """End the threads, wait these seconds for them, and leave all folders to other processes."""
        with self.changed:
            self._stopped = True
            self.changed.notify_all()
        for thread in list(self._threads.values()):
            if thread.is_alive():
                thread.join(seconds)
        with self.changed:
            for spool in self._spools:
                if not spool.busy:
                    spool.leave()
            self._spools.clear()

    def _start_threads(self) -> None:
        if self._stopped:
            return
        needed = {spool.pending[0].kind in UPLOADS for spool in self._spools if spool.pending}
        for uploads in needed - {uploads for uploads, thread in self._threads.items() if thread.is_alive()}:
            name = "spool-uploads" if uploads else "spool-records"
            thread = threading.Thread(target=self._work, args=[uploads], name=name, daemon=True)
            self._threads[uploads] = thread  # before it starts, as Ctrl-C may come right after that
            with suppress(RuntimeError):  # Python is about to end
                thread.start()

    def _work(self, uploads: bool) -> None:
        client: MlflowClient | None = None
        idle_since = time.monotonic()
        while True:
            with self.changed:
                spool = self._next(uploads)
                if spool is None:
                    busy = any(s.pending and (s.pending[0].kind in UPLOADS) == uploads for s in self._spools)
                    idle_since = time.monotonic() if busy else idle_since
                    if self._stopped or time.monotonic() > idle_since + IDLE_SECONDS:
                        self._threads.pop(uploads, None)
                        return
                    self.changed.wait(self._pause())
                    continue
                spool.busy = True
                record = spool.pending[0]
            idle_since = time.monotonic()
            found: str | Exception
            try:
                client = client or MlflowClient(self.uri)
                found = attempt(client, spool, record)
            except Exception as error:
                found = error
            with self.changed:
                spool.busy = False
                self._conclude(spool, record, found)
                with suppress(ValueError):
                    self._spools.remove(spool)
                self._spools.append(spool)
            self.wake()

    def _next(self, uploads: bool) -> Spool | None:
        """Return the spool whose first record is to be sent now by the thread for uploads or by the other one."""
        now = time.monotonic()
        if self._stopped or self.offline or now < self._contact.retry_at:
            return None
        ready = [spool for spool in self._spools if spool.pending and not (spool.busy or spool.stuck)]
        if not self.is_up:  # one record after the other finds out whether the store is back
            if any(spool.busy for spool in self._spools):
                return None
            ready.sort(key=lambda spool: spool.retry_at)
        else:
            ready = [spool for spool in ready if spool.retry_at <= now]
        return next((spool for spool in ready if (spool.pending[0].kind in UPLOADS) == uploads), None)

    def _pause(self) -> float:
        """Return the seconds until a record may be sent again."""
        times = [spool.retry_at for spool in self._spools if spool.pending and not spool.busy and self.is_up]
        until = max(self._contact.retry_at, min(times, default=0.0)) - time.monotonic()
        return min(max(until, 0.01), IDLE_SECONDS) if until > 0 else IDLE_SECONDS

    def _conclude(self, spool: Spool, record: Record, found: str | Exception) -> None:
        """Note what became of a record, and when the next one may be sent."""
        if isinstance(found, str):
            spool.settle(record, found)
            self._last_success = time.monotonic()
            self._answered()
            if found:  # an id, for which others may wait
                self._unblock()
        elif isinstance(found, GoneError):
            spool.drop(record)
            self._answered()
        elif isinstance(found, DamagedError):
            spool.lose(record, str(found))
        elif isinstance(found, ids.NotSentError):
            spool.blocked, spool.reason = True, str(found)
            spool.failures += 1
            spool.retry_at = self._contact.next_attempt(spool.failures)
            self._answered()
        elif isinstance(found, RefusedError):
            self.refused += 1
            spool.refuse(record, found.reason)
            log.warning(
                f"the tracking store refused what run {spool.id} logged (record {record.number}, {record.kind}):"
                f" {first_line(found.reason)}; it is kept in {spool.path}"
            )
            self._answered()
        else:
            self._failed(spool, record, found)

    def _answered(self) -> None:
        if self._contact.answered():
            for spool in self._spools:
                spool.retry_at = 0.0

    def _unblock(self) -> None:
        for spool in self._spools:
            if spool.blocked:
                spool.blocked, spool.retry_at = False, 0.0

    def _failed(self, spool: Spool, record: Record, error: Exception) -> None:
        weight = AWAY if is_timeout(error) else 1
        spool.doubtful = True
        spool.failures += weight
        spool.retry_at = self._contact.next_attempt(spool.failures)
        spool.reason = reason_of(error)
        log.debug(f"record {record.number} of run {spool.id} was not sent: {spool.reason}")
        if record.kind not in UPLOADS:  # the store of the artifacts may be another server
            self._contact.failed(spool.reason, weight)
