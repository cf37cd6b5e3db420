"""The lock of a study: a row in the study's database, by which only one process at a time drives the study."""

from __future__ import annotations

import datetime
import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.exceptions import StorageInternalError

from fmnist_exp.backend import processes
from fmnist_exp.backend.processes import Process
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.tracking import failures, first_use, store
from fmnist_exp.tracking.redact import remember, without_secrets

BEAT_SECONDS = 5
STALE_SECONDS = 30  # without a sign of life, a driver on another machine is dead
DATABASE_ERRORS = (sa.exc.SQLAlchemyError, OSError, ImportError)  # the last is for a driver that is not installed

STUDY_ERRORS = (*DATABASE_ERRORS, StorageInternalError, RuntimeError)  # the last is for tables of another Optuna

# Its name and columns never change: drivers of older versions may hold a study.
TABLE = sa.Table(
    "fmnist_exp_drivers",
    sa.MetaData(),
    sa.Column("study", sa.String(512), primary_key=True),
    sa.Column("token", sa.String(32), nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("machine", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("born", sa.Double, nullable=False),
    sa.Column("since", sa.DateTime(timezone=True), nullable=False),
    sa.Column("beat", sa.DateTime(timezone=True), nullable=False),
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder(Process):
    """The process of a driver, as the lock's row names it."""

    token: str
    since: datetime.datetime  # UTC

    def is_dead(self, silent: float) -> bool:
        """Return True if the process is gone.

        Args:
            silent: seconds without a sign of life, after which a process on another machine counts as dead.
        """
        gone = self.is_gone()
        return silent > STALE_SECONDS if gone is None else gone


class StudyLock:
    """The lock of a study, held by this process. A background thread renews it as a sign of life."""

    def __init__(self, engine: sa.Engine, study: str, holder: Holder) -> None:
        self._engine = engine
        self._study = study
        self._mine = TABLE.c.token == holder.token
        self._over = threading.Event()
        self._lost = False
        threading.Thread(target=self._beat, daemon=True, name="study lock").start()

    def check(self) -> None:
        """Raise WorkError if another driver has taken the study over."""
        if self._lost:
            raise WorkError(
                f"another process took study {self._study!r} over, since this one gave no sign of life for"
                f" {STALE_SECONDS} seconds; the trials that ended are kept"
            )

    def release(self) -> None:
        """Release the lock, so that another driver can take it."""
        self._over.set()
        with suppress(*DATABASE_ERRORS), self._engine.begin() as connection:
            connection.execute(TABLE.delete().where(self._mine))

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                with self._engine.begin() as connection:
                    done = connection.execute(TABLE.update().where(self._mine).values(beat=sa.func.now()))
                self._lost = done.rowcount == 0
            except DATABASE_ERRORS as error:  # the database may be away for a while; the next beat tries again
                log.info("no sign of life for study %s: %s", self._study, error)


@contextmanager
def hold(storage: str, study: str) -> Iterator[StudyLock]:
    """Hold the study's lock during the block. The lock of a dead driver is taken over.

    Raises:
        RequestError: another driver holds it, or the database cannot be used.
    """
    with _engine(storage) as engine:
        try:
            with first_use.alone(storage):
                TABLE.metadata.create_all(engine)
            mine = _this_process()
            other = _take(engine, study, mine)
        except DATABASE_ERRORS as error:
            raise unusable(storage, error) from error
        if other is not None:
            # SQLite gives back what was written, without its zone; PostgreSQL the same moment in a zone of its own
            in_utc = other.since.astimezone(datetime.UTC) if other.since.tzinfo else other.since
            since = f"{in_utc:%Y-%m-%d %H:%M} UTC"
            raise RequestError(
                f"study {study!r} is being run by process {other.pid} on {other.host} since {since}; wait for it, end"
                " it, or choose another study name"
            )
        lock = StudyLock(engine, study, mine)
        try:
            yield lock
        finally:
            lock.release()


def abandoned(storage: str) -> list[str]:
    """Return the studies whose drivers died, the newest first, or none if the database does not exist."""
    with suppress(RequestError):  # `hold` says what is wrong
        return [name for name, is_dead in _locked(storage) if is_dead]
    return []


def running(storage: str) -> set[str]:
    """Return the studies that a driver runs, or none if the database does not exist. Raises RequestError."""
    return {name for name, is_dead in _locked(storage) if not is_dead}


def _locked(storage: str) -> list[tuple[str, bool]]:
    """Return the studies that have a lock, the newest lock first, and whether its holder is dead."""
    with _engine(storage) as engine:
        try:
            if not _has_table(engine, TABLE.name):
                return []
            with engine.connect() as connection:
                rows = connection.execute(_with_time().order_by(TABLE.c.since.desc())).all()
        except DATABASE_ERRORS as error:
            raise unusable(storage, error) from error
    return [(row.study, _holder(row).is_dead((row.now - row.beat).total_seconds())) for row in rows]


def names(storage: str) -> list[str]:
    """Return the names of all studies, or none if the database does not exist, which is not created then.

    Raises:
        RequestError: the database cannot be used.
    """
    try:
        with _engine(storage) as engine:
            return sorted(optuna.get_all_study_names(storage)) if _has_table(engine, "studies") else []
    except STUDY_ERRORS as error:
        raise unusable(storage, error) from error


def _has_table(engine: sa.Engine, name: str) -> bool:
    """Return True if the database exists and has this table. A file of SQLite is not created."""
    file = engine.url.database if engine.url.get_backend_name() == "sqlite" else None
    return not (file and not Path(file).exists()) and sa.inspect(engine).has_table(name)


def unusable(storage: str, error: Exception) -> RequestError:
    """Return the error that says why a database of studies cannot be used."""
    return RequestError(f"the study database {without_secrets(storage)} cannot be used: {failures.advised(error)}")


@contextmanager
def _engine(storage: str) -> Iterator[sa.Engine]:
    remember(storage)
    try:
        engine = store.engine(storage)
    except DATABASE_ERRORS as error:
        raise unusable(storage, error) from error
    try:
        yield engine
    finally:
        engine.dispose()


def _with_time() -> sa.Select[Any]:
    """Return a query for rows with the database's own time, since clocks of other machines may differ."""
    return sa.select(TABLE, sa.func.now(type_=TABLE.c.beat.type).label("now"))


def _holder(row: Any) -> Holder:
    return Holder(row.host, row.machine, row.pid, row.born, row.token, row.since)


def _take(engine: sa.Engine, study: str, mine: Holder) -> Holder | None:
    """Write `mine` into the study's row, unless a driver that is alive holds the lock; return that driver."""
    fields = {**vars(mine), "beat": sa.func.now()}
    row_of_study = TABLE.c.study == study
    try:
        with engine.begin() as connection:
            connection.execute(TABLE.insert().values(study=study, **fields))
        return None
    except sa.exc.IntegrityError:  # there is a row: its holder lives, or one of those who wait may take it
        with engine.begin() as connection:
            row = connection.execute(_with_time().where(row_of_study)).one_or_none()
            if row is None:  # it was released just now
                return _take(engine, study, mine)
            other = _holder(row)
            if not other.is_dead((row.now - row.beat).total_seconds()):
                return other
            still_theirs = TABLE.c.token == other.token
            done = connection.execute(TABLE.update().where(row_of_study, still_theirs).values(**fields))
        return None if done.rowcount else _take(engine, study, mine)


def _this_process() -> Holder:
    now = datetime.datetime.now(datetime.UTC)
    return Holder(**vars(processes.this()), token=uuid.uuid4().hex, since=now)
