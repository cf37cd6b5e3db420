"""Who drives a study: one process at a time, as a row in the study's own database says."""

from __future__ import annotations

import datetime
import logging
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmnist_exp.backend import machine
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.tracking.redact import without_secrets

if TYPE_CHECKING:
    import sqlalchemy as sa

BEAT_SECONDS = 5
TABLE = "fmnist_exp_drivers"
STALE_SECONDS = 30  # without a sign of life, a driver on another machine is dead

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """A driver: its process and where that runs."""

    token: str
    host: str
    machine: str  # a boot and its process namespace: where `pid` has a meaning
    pid: int
    born: float  # when the process started, seconds since the epoch: pids are used again
    since: datetime.datetime  # UTC

    def is_dead(self, silent: float) -> bool:
        """Whether the process is gone: looked up where it can be, else judged by `silent`, seconds without a sign."""
        import psutil

        if self.machine != _machine():
            return silent > STALE_SECONDS
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:  # in a container nobody may collect it
                return True
            return bool(abs(process.create_time() - self.born) > 1)
        except psutil.NoSuchProcess:
            return True


class Lease:
    """A study's lease, held. A thread of its own shows that this process lives."""

    def __init__(self, engine: sa.Engine, table: sa.Table, study: str, holder: Holder) -> None:
        self._engine = engine
        self._table = table
        self._study = study
        self._holder = holder
        self._over = threading.Event()
        self._lost = False
        threading.Thread(target=self._beat, daemon=True, name="lease").start()

    def check(self) -> None:
        """Raise WorkError if another driver has taken the study over."""
        if self._lost:
            raise WorkError(
                f"another process took study {self._study!r} over, since this one gave no sign of life for"
                f" {STALE_SECONDS} seconds; the trials that ended are kept"
            )

    def release(self) -> None:
        """Let the next driver have the study."""
        self._over.set()
        with suppress(Exception), self._engine.begin() as connection:
            connection.execute(self._table.delete().where(self._mine()))
        self._engine.dispose()

    def _mine(self) -> Any:
        return self._table.c.token == self._holder.token

    def _beat(self) -> None:
        import sqlalchemy as sa

        while not self._over.wait(BEAT_SECONDS):
            try:
                with self._engine.begin() as connection:
                    done = connection.execute(self._table.update().where(self._mine()).values(beat=sa.func.now()))
                self._lost = done.rowcount == 0
            except Exception as error:  # a database that is away for a while; the next beat tries again
                log.info("no sign of life for study %s: %s", self._study, error)


@contextmanager
def hold(storage: str, study: str) -> Iterator[Lease]:
    """Hold the study's lease; that of a dead driver is taken over.

    Raises:
        RequestError: another driver has it, or the database cannot be used.
    """
    import sqlalchemy as sa

    try:
        engine = sa.create_engine(storage)
        table = _table()
        table.metadata.create_all(engine)
        mine = _this_process()
        other = _take(engine, table, study, mine)
    except Exception as error:  # SQLAlchemy's and the drivers' own errors, of many types
        reason = without_secrets(str(error)).splitlines()[0]
        raise RequestError(f"the study database {without_secrets(storage)} cannot be used: {reason}") from error
    if other is not None:
        # SQLite gives back what was written, without its zone; PostgreSQL the same moment in a zone of its own
        in_utc = other.since.astimezone(datetime.UTC) if other.since.tzinfo else other.since
        since = f"{in_utc:%Y-%m-%d %H:%M} UTC"
        raise RequestError(
            f"study {study!r} is being run by process {other.pid} on {other.host} since {since}; wait for it, end it,"
            " or choose another study name"
        )
    lease = Lease(engine, table, study, mine)
    try:
        yield lease
    finally:
        lease.release()


def abandoned(storage: str) -> list[str]:
    """Studies whose drivers died without giving them back, the newest first; none where there is no such database."""
    import sqlalchemy as sa

    try:
        engine = sa.create_engine(storage)
        file = engine.url.database if engine.url.get_backend_name() == "sqlite" else None
        if (file and not Path(file).exists()) or not sa.inspect(engine).has_table(TABLE):
            return []
        table = _table()
        query = sa.select(table, sa.func.now(type_=table.c.beat.type).label("now")).order_by(table.c.since.desc())
        with engine.connect() as connection:
            rows = connection.execute(query).all()
    except Exception:  # a database that cannot be used is refused where the lease is taken
        return []
    return [row.study for row in rows if _holder(row).is_dead((row.now - row.beat).total_seconds())]


def _holder(row: Any) -> Holder:
    return Holder(row.token, row.host, row.machine, row.pid, row.born, row.since)


def _take(engine: sa.Engine, table: sa.Table, study: str, mine: Holder) -> Holder | None:
    """Write `mine` into the study's row unless another living holder is there; return that one."""
    import sqlalchemy as sa

    fields = {**vars(mine), "beat": sa.func.now()}
    row_of_study = table.c.study == study
    try:
        with engine.begin() as connection:
            connection.execute(table.insert().values(study=study, **fields))
        return None
    except sa.exc.IntegrityError:  # there is a row: its holder lives, or the row may be taken from it, by one of us
        with engine.begin() as connection:
            query = sa.select(table, sa.func.now(type_=table.c.beat.type).label("now")).where(row_of_study)
            row = connection.execute(query).one_or_none()
            if row is None:  # it was released just now
                return _take(engine, table, study, mine)
            other = _holder(row)
            if not other.is_dead((row.now - row.beat).total_seconds()):
                return other
            still_theirs = table.c.token == other.token
            done = connection.execute(table.update().where(row_of_study, still_theirs).values(**fields))
        return None if done.rowcount else _take(engine, table, study, mine)


def _table() -> sa.Table:
    import sqlalchemy as sa

    return sa.Table(
        TABLE,
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


def _this_process() -> Holder:
    import psutil

    born = psutil.Process().create_time()
    now = datetime.datetime.now(datetime.UTC)
    return Holder(uuid.uuid4().hex, machine.host(), _machine(), os.getpid(), born, now)


def _machine() -> str:
    """Names this boot of this machine and its process namespace; containers of one host have several."""
    parts = [machine.host()]
    with suppress(OSError):  # Linux only
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)
