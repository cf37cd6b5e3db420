"""Owners of runs: a tag names the process that writes a run, and a heartbeat says when it last gave a sign of life.

By the tag, every process can tell a run that is being written from one that a killed process left open. A child run has
no heartbeat of its own: it lives as long as its owner, or the owner of its parent.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, Self

from mlflow import MlflowClient, entities
from mlflow.exceptions import MlflowException

from fmnist_exp.backend import processes
from fmnist_exp.backend.processes import Process
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.tracking import transport
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tracking.spool import ids

BEAT_SECONDS = 60
STALE_SECONDS = 900  # without a sign of life, an owner on another machine is dead; a server may be away for minutes
MOST = 5000  # open runs that one command looks at
LARGEST_PID = 2**31 - 1
DIED = "its process died"  # the first words of the reason with which `close_dead` closes a run

log = logging.getLogger(__name__)


class LostError(WorkError):
    """Another process has resumed the run, so that this process must not write to it any more."""


class Held(Protocol):
    """A run that this process writes."""

    client: MlflowClient

    @property
    def id(self) -> str:
        """The run's id, which a run that the store does not have yet may still change."""


@dataclass(frozen=True)
class Owner(Process):
    """The process that writes a run."""

    beat: float  # its last sign of life, in seconds since the epoch

    @classmethod
    def of(cls, run: entities.Run) -> Self | None:
        """Return the owner that a run's tag names, or None if an earlier release wrote the run."""
        try:
            fields = json.loads(run.data.tags[Tag.OWNER])
            owner = cls(str(fields["host"]), str(fields["machine"]), int(fields["pid"]), *_times(fields))
        except (LookupError, TypeError, ValueError, OverflowError, RecursionError):
            return None
        return owner if 0 < owner.pid <= LARGEST_PID else None

    def lives(self) -> bool:
        """Return True if the process runs or, on another machine, has given a sign of life in the last 15 minutes."""
        gone = self.is_gone()
        return time.time() - self.beat <= STALE_SECONDS if gone is None else not gone

    def reason(self) -> str:
        """Return the reason for which a run of this owner is closed."""
        silent = "" if self.is_gone() else f" and gave no sign of life for {STALE_SECONDS // 60} minutes"
        return f"{DIED}: process {self.pid} on {self.host} was writing the run{silent}"


def _times(fields: dict[str, object]) -> tuple[float, float]:
    return float(str(fields["born"])), float(str(fields["beat"]))


def text() -> str:
    """Return the value of the tag `fmnist.owner` for a run of this process."""
    return json.dumps(vars(Owner(**vars(processes.this()), beat=round(time.time(), 3))))


def check_dead(client: MlflowClient, run: entities.Run, name: str) -> None:
    """Raise RequestError if a live process writes the run. `name` is the run's name in the message."""
    owner = Owner.of(run)
    is_open = run.info.status == "RUNNING" or run.data.tags.get(Tag.ERROR, "").startswith(DIED)
    if owner is None or not is_open or not _is_live(run, _parent(client, run)):
        return
    if _is_mine(owner) and not _holds(run.info.run_id):  # this process has given the run up without closing it
        return
    raise RequestError(
        f"{name} is being written by process {owner.pid} on {owner.host}; wait until it ends, or end that process"
    )


def close_dead(client: MlflowClient) -> list[str]:
    """Close the runs that dead processes left open, in all experiments of the store, and return their ids.

    Runs that this user may not write are left alone, and so are all runs if the store cannot search them.
    """
    closed: list[str] = []
    with suppress(MlflowException):
        experiment_ids = [str(experiment.experiment_id) for experiment in client.search_experiments()]
        query = f"attributes.status = 'RUNNING' and tags.`{Tag.OWNER}` LIKE '{{%'"
        found = {run.info.run_id: run for run in client.search_runs(experiment_ids, query, max_results=MOST)}
        for run in found.values():
            owner = Owner.of(run)
            if owner is None or _is_live(run, found.get(run.data.tags.get(Tag.PARENT, ""))):
                continue
            with suppress(MlflowException):
                client.set_tag(run.info.run_id, str(Tag.ERROR), owner.reason())
                client.set_terminated(run.info.run_id, "KILLED")
                closed.append(run.info.run_id)
    return closed


def _parent(client: MlflowClient, run: entities.Run) -> entities.Run | None:
    with suppress(MlflowException, KeyError):  # somebody deleted the parent, or there is none
        return client.get_run(run.data.tags[Tag.PARENT])
    return None


def _is_live(run: entities.Run, parent: entities.Run | None) -> bool:
    """Return True if the run's owner lives, or that of its parent, unless the run's own is known to be gone."""
    owner = Owner.of(run)
    if owner is not None and (owner.lives() or owner.is_gone()):
        return owner.lives()
    above = Owner.of(parent) if parent is not None and parent.info.status == "RUNNING" else None
    return above is not None and above.lives()


def _is_mine(owner: Owner) -> bool:
    mine = processes.this()
    return (owner.machine, owner.pid) == (mine.machine, mine.pid)


# the runs that this process writes, and those of them that another process has taken over
_held: list[Held] = []
_lost: list[Held] = []
_beating = threading.Lock()


def hold(run: Held) -> None:
    """Renew the heartbeat of a run in the background until `release` is called."""
    _held.append(run)
    if _beating.acquire(blocking=False):  # never released: there is one thread, as long as the process lives
        threading.Thread(target=_beat, daemon=True, name="owner of runs").start()


def release(run: Held) -> bool:
    """Stop the heartbeat of a run. Return False if another process has taken the run over, so that it stays open."""
    lost = run in _lost
    for held in (_held, _lost):
        with suppress(ValueError):
            held.remove(run)
    return not lost


def check(run: Held) -> None:
    """Raise LostError if another process has resumed the run."""
    if run in _lost:
        raise LostError(
            f"another process resumed run {run.id}, since this one gave no sign of life for"
            f" {STALE_SECONDS // 60} minutes; that process finishes the run"
        )


def renew(run: Held) -> None:
    """Write a sign of life to a run of this process. If the run was closed by mistake, it is opened again.

    A run that the store does not have yet needs none.
    """
    if ids.is_local(run.id):
        return
    found = run.client.get_run(run.id)
    owner = Owner.of(found)
    if owner is not None and not _is_mine(owner):
        _lost.append(run)
        return
    run.client.set_tag(run.id, str(Tag.OWNER), text())
    by_mistake = found.info.status == "KILLED" and found.data.tags.get(Tag.ERROR, "").startswith(DIED)
    if by_mistake and run in _held:
        run.client.update_run(run.id, "RUNNING")
        with transport.unless_gone():
            run.client.delete_tag(run.id, str(Tag.ERROR))


def _holds(run_id: str) -> bool:
    return any(run.id == run_id for run in _held)


def _beat() -> None:
    while True:
        time.sleep(BEAT_SECONDS)
        for run in [run for run in _held if run not in _lost]:
            try:
                renew(run)
            except Exception as error:  # the store may be away for a while, and the next beat tries again
                log.info("no sign of life for run %s: %s", run.id, error)
