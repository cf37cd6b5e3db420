"""Write about one run: each record goes to the disk, and into a queue for the sender."""

import logging
import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fmnist_exp.tracking.names import Tag
from fmnist_exp.tracking.redact import first_line
from fmnist_exp.tracking.spool import folder as folders
from fmnist_exp.tracking.spool import ids
from fmnist_exp.tracking.spool.carrier import Carrier, Kind
from fmnist_exp.tracking.spool.folder import DELIVERED, REFUSED, Folder, RunHead
from fmnist_exp.tracking.spool.records import Record

log = logging.getLogger(__name__)


class Spool:
    """The records that this process writes about one run, or found in a folder whose writer is gone."""

    def __init__(self, head: RunHead, carrier: Carrier) -> None:
        self.head = head
        self.pending: deque[Record] = deque()
        self.run_id = "" if ids.is_local(head.id) else head.id  # the store's
        self.users = 1  # objects that may append
        self.reopened = False
        self.busy = False  # its first record is being sent
        self.doubtful = False  # the store may have the first record already
        self.failures = 0  # of the first record in a row
        self.retry_at = 0.0  # on time.monotonic()
        self.reason = ""  # why its first record was not sent at the last attempt
        self.blocked = False  # by a local id that another folder must bring to the store
        self.stuck = False  # the store refused to create the run
        self.lost: set[str] = set()  # local ids that the store will never have
        self.history: dict[tuple[str, str], dict[tuple[object, ...], int]] = {}  # known metrics by run and name
        self.damaged: list[str] = []  # what cannot be sent because the disk has changed it
        self._start(carrier)

    def _start(self, carrier: Carrier) -> None:
        self.carrier = carrier
        self._process = os.getpid()
        self._appending = threading.RLock()
        self._folder: Folder | None = None
        self._count = self._settled = 0
        self._ids: dict[int, str] = {}
        self._refusals: dict[int, Exception] = {}
        self._unsaved: set[int] = set()  # records that are in memory only
        self._aside: dict[int, Path] = {}  # where the files of such records are
        self._told = False
        self._kept = False  # the folder has records that an earlier process left because the store refused them

    def reopen(self, folder: Folder, again: bool = False) -> None:
        """Take over the records that were not sent from the folder of a writer that is gone.

        With `again`, those that the store has refused are sent once more.
        """
        found, settled, missing = folder.read()
        self.reopened = self.doubtful = True
        self.users = 0
        self._folder = folder
        self._count = max([0, *settled, *(record.number for record in found)])
        created = next((record for record in settled.values() if record.body.get("run")), None)
        self.run_id = self.run_id or (str(created.body["id"]) if created else "")
        self.damaged = [f"record {number}" for number in missing]
        if 1 in missing and not self.run_id:  # the run was to be created by it
            self.pending.append(Record(1, "create_run", folders.now(), self.head.creation()))
        done = {number for number, record in settled.items() if record.kind == DELIVERED or not again}
        self._kept = any(record.kind == REFUSED for record in settled.values()) and not again
        self.pending.extend(record for record in found if record.number not in done)
        self._tell_damage()

    @property
    def id(self) -> str:
        """The run's id in the store if this process knows it, otherwise its local id."""
        return self.run_id or self.head.id

    def append(self, kind: Kind, body: Mapping[str, Any], files: Path | None = None) -> int:
        """Keep a record, and return its number; the sender sends it when the store answers.

        Args:
            kind: What the record is.
            body: Its content in JSON's types. Ids of runs and models may be local ones. With a `run_id`, the record is
                about that run in place of the spool's own.
            files: A folder whose files belong to the record. It is moved to the spool.

        If the disk is full, the record is kept in memory, so that nothing is lost as long as the store answers.
        """
        if self._process != os.getpid():  # a fork has neither the threads nor the folder
            self.pending = deque()
            self._start(self.carrier.here())
        with self._appending:
            number = self._count + 1
            record = self._write(Record(number, kind, folders.now(), dict(body)), files)
            with self.carrier.changed:
                self._count = number
                self._supersede(record)
                self.pending.append(record)
        self.carrier.wake(self)
        return number

    def _write(self, record: Record, files: Path | None) -> Record:
        try:
            if self._folder is None:
                self._folder = Folder.create(replace(self.head, id=self.id), self.carrier.address, record.number)
            if files is not None:
                record = replace(record, body={**record.body, "files": self._folder.keep(record.number, files)})
            self._folder.append(record)
        except OSError as error:
            if not self._told:
                self._told = True
                log.warning(
                    f"the spool {folders.root()} cannot be written ({first_line(error)}); what the run logs is kept in"
                    " memory until the tracking store has it, and is lost if the command ends before"
                )
            self._unsaved.add(record.number)
            if files is not None and files.is_dir():
                aside = self._aside[record.number] = Path(tempfile.mkdtemp(prefix="fmnist-exp-spool-"), "files")
                shutil.move(files, aside)
                record = replace(record, body={**record.body, "files": folders.checksums(aside)})
        return record

    def _supersede(self, record: Record) -> None:
        """Drop waiting artifacts and checkpoints that a new record replaces: a fit goes on while the store is away."""
        new, body = set(record.body.get("files", ())), record.body
        if record.kind != "artifacts" and not (record.kind == "model" and body.get("replaces")):
            return
        for old in list(self.pending)[1:]:
            same = old.kind == record.kind and all(old.body.get(key) == body.get(key) for key in ("path", "name"))
            if same and set(old.body.get("files", ())) <= new:
                self.pending.remove(old)
                self._lose_id(old)
                self._forget(old, DELIVERED)

    def files(self, record: Record) -> Path:
        """Return the folder of a record's files, which may be missing."""
        if record.number in self._aside or self._folder is None:
            return self._aside.get(record.number, Path("missing"))
        return self._folder.files(record.number)

    def close(self) -> None:
        """Say that an object that may append will not do so again; the folder goes when everything is sent."""
        with self.carrier.changed:
            self.users -= 1
            if self.users <= 0 and self._folder is not None:
                self._folder.rest()
        self.carrier.wake(self)

    @property
    def is_over(self) -> bool:
        """Return True if nobody appends any more, and everything was sent."""
        return self.users <= 0 and not self.pending

    @property
    def unsaved(self) -> int:
        """Return the number of records that are in memory only."""
        return len(self._unsaved)

    def leave(self) -> None:
        """Delete the folder if everything in it was sent; otherwise leave it to other processes."""
        if self._folder is not None:
            if self.pending or self._refusals or self._kept:
                self._folder.release()
            else:
                self._folder.delete()
            self._folder = None

    def wait(self, number: int, seconds: float | None = None) -> bool:
        """Return True when the store has a record.

        Return False if it refused the record, after `seconds`, or at once while the store is away.
        """
        with self.carrier.changed:
            self.carrier.changed.wait_for(
                lambda: self._settled >= number or not self.carrier.hopeful(self), timeout=seconds
            )
            return self._settled >= number and number not in self._refusals

    def result(self, number: int) -> str:
        """Return the id that the store gave for a record, or an empty text."""
        return self._ids.get(number, "")

    def refusal(self, number: int) -> Exception | None:
        """Return the error with which the store refused a record for good, or None."""
        return self._refusals.get(number)

    def settle(self, record: Record, found: str) -> None:
        """Note that the store has a record, and the id that it gave."""
        if found:
            self._ids[record.number] = found
        if record.kind == "create_run":
            self.run_id = found
        self._pass(record, DELIVERED, id=found, run=record.kind == "create_run")

    def refuse(self, record: Record, error: Exception) -> None:
        """Note that the store will never take a record, which is kept with the reason."""
        self._refusals[record.number] = error
        self.stuck = self.stuck or record.kind == "create_run"
        self._lose_id(record)
        self._pass(record, REFUSED, reason=first_line(error))

    def _lose_id(self, record: Record) -> None:
        self.lost |= {str(record.body["id"])} if "id" in record.body else set()

    def lose(self, record: Record, what: str) -> None:
        """Note that the disk has damaged a record's files, so that it cannot be sent."""
        self.damaged.append(what)
        self._lose_id(record)
        self._pass(record, DELIVERED)

    def drop(self, record: Record) -> None:
        """Forget a record about a run that a user has deleted, and all others if it is the spool's own run."""
        if record.body.get("run_id", self.run_id) != self.run_id:
            self._pass(record, DELIVERED)
            return
        self.damaged = []
        while self.pending:
            self._pass(self.pending[0], DELIVERED)

    @property
    def path(self) -> Path:
        """Return the folder on the disk, or the folder of all spools before the first record."""
        return self._folder.path if self._folder is not None else folders.root()

    def size(self) -> int:
        """Return the size of the folder in bytes."""
        return folders.size(self._folder.path) if self._folder is not None else 0

    def _pass(self, record: Record, kind: str, **body: Any) -> None:
        self._forget(record, kind, **body)
        self.pending.popleft()
        self._settled = record.number
        self.doubtful, self.failures, self.retry_at, self.blocked = self.reopened, 0, 0.0, False
        self._tell_damage()

    def _forget(self, record: Record, kind: str, **body: Any) -> None:
        if self._folder is not None:
            self._folder.settle(record.number, kind, **body)
        if aside := self._aside.pop(record.number, None):
            shutil.rmtree(aside.parent, ignore_errors=True)
        self._unsaved.discard(record.number)

    def _tell_damage(self) -> None:
        """Tag the run, after everything else, with what the disk has damaged."""
        if self.damaged and not self.pending:
            self._count += 1
            text = f"The local spool was damaged; the store never got: {', '.join(self.damaged)}."
            self.pending.append(Record(self._count, "batch", folders.now(), {"tags": {Tag.SPOOL_DAMAGED: text}}))
            log.warning(f"run {self.id}: {text[0].lower()}{text[1:-1]}")
            self.damaged = []
