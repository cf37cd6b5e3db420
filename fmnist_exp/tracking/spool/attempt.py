"""One attempt to bring a record to the store, and what its errors mean."""

import errno
import os
from http import HTTPStatus

import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fmnist_exp import compat
from fmnist_exp.errors import WorkError, is_full_disk
from fmnist_exp.tracking import transport
from fmnist_exp.tracking.redact import first_line
from fmnist_exp.tracking.spool import delivery, ids
from fmnist_exp.tracking.spool.delivery import DamagedError, Delivery
from fmnist_exp.tracking.spool.folder import heads, root
from fmnist_exp.tracking.spool.queue import Spool
from fmnist_exp.tracking.spool.records import Record

TIMED_OUT = "timed out"  # in the text of an error of `requests` that has no class of its own
REFUSED = "Connection refused"  # the same
LONGEST = 200  # characters of the store's words that are shown
UPLOADS = {"artifacts", "model", "register"}  # kinds that may take minutes
CONNECT_SECONDS, ANSWER_SECONDS, LONGEST_ANSWER = 5.0, 10.0, 120.0  # the second doubles with each attempt
UPLOAD_SECONDS = 60.0  # for an answer to an upload

# error codes with which MLflow refuses a request for good
REFUSALS = {
    *("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "PERMISSION_DENIED"),
    *("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS", "RESOURCE_CONFLICT", "NOT_IMPLEMENTED"),
}
# answers of a server that is busy, or that wants other credentials, which the next command may have
PASSING = {HTTPStatus.UNAUTHORIZED, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}


class RefusedError(Exception):
    """The store has refused a record for good."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(first_line(reason))
        self.reason = reason


class GoneError(Exception):
    """A user has deleted the run, or it is lost, so that nothing more can be written about it."""


def attempt(client: MlflowClient, spool: Spool, record: Record, again: bool = True) -> str:
    """Bring a record to the store, and return the id that the store gave, or an empty text.

    Raises RefusedError or GoneError if it is useless to try again, NotSentError if another folder has to be sent first,
    and otherwise whatever the store raises. What the store refuses is sent once more, if `again`.
    """
    longest = min(ANSWER_SECONDS * 2.0 ** min(spool.failures, 10), LONGEST_ANSWER)
    with compat.impatient(CONNECT_SECONDS, UPLOAD_SECONDS if record.kind in UPLOADS else longest):
        try:
            return _deliver(client, spool, record)
        except ids.NotSentError as error:
            if _is_lost(client, spool, record, error.local):
                raise GoneError(f"run {error.local} was never written to the disk, and its process is gone") from error
            raise
        except DamagedError:
            raise
        except Exception as error:
            if not is_refusal(error):
                raise
            if again:  # the same call may have come before, twice or late, so that the store has what it refuses
                spool.doubtful = True
                return attempt(client, spool, record, again=False)
            if run_id := str(record.body.get("run_id") or spool.run_id):
                _check_lifecycle(client, run_id, error)
            raise RefusedError(error) from error


def _deliver(client: MlflowClient, spool: Spool, record: Record) -> str:
    creates = record.kind == "create_run"
    if not spool.run_id and not creates:
        spool.run_id = ids.resolve(client, spool.head.id) or ""
    body = ids.resolve_all(client, record.body, spool.lost)
    run_id = body.get("run_id") or spool.run_id
    if not run_id and not creates:
        raise ids.NotSentError(spool.head.id)
    local = spool.head.id if ids.is_local(spool.head.id) else ""
    flags = spool.doubtful, spool.reopened
    history = dict(spool.history)  # what an attempt adds holds only if it succeeds
    to = Delivery(client, record, body, run_id, local, spool.files(record), *flags, history)
    found = delivery.HANDLERS[record.kind](to)
    if spool.reopened:  # each of its records asks
        spool.history = history
    spool.damaged += [f"{what} of record {record.number}" for what in to.damaged]
    if found:
        ids.remember(client, local if creates else str(record.body["id"]), found)
    return found


def _is_lost(client: MlflowClient, spool: Spool, record: Record, local: str) -> bool:
    """Return True if a record is about another run that no process and no folder can bring to the store any more.

    A full disk may have kept the run in the memory of a process that was killed. Only what is said about the end or the
    parent of such a run is given up; a version waits for its model.
    """
    if record.kind not in ("batch", "status") or record.body.get("run_id") != local or spool.path.parent != root():
        return False
    if spool.carrier.writes(local) or local in heads():
        return False
    return ids.resolve(client, local) is None  # asked again: the run may have been sent, and its folder deleted


def _check_lifecycle(client: MlflowClient, run_id: str, error: Exception) -> None:
    """Raise GoneError if a user has deleted the run, which is why the store refuses to write into it."""
    try:
        run = client.get_run(run_id)
    except Exception as unknown:
        if not is_refusal(unknown):
            raise
        return
    if run.info.lifecycle_stage == "deleted":
        raise GoneError(f"run {run_id} was deleted") from error


def is_refusal(error: Exception) -> bool:
    """Return True if an error is a clear answer that the same request would get again."""
    if transport.is_lost(error):
        return False
    if isinstance(error, requests.HTTPError) and error.response is not None:
        status = error.response.status_code
        return HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in PASSING
    if isinstance(error, MlflowException):
        return error.error_code in REFUSALS
    return isinstance(error, TypeError | ValueError | LookupError | AttributeError | WorkError)


def is_timeout(error: Exception) -> bool:
    """Return True if the store gave no answer in time, which already took long."""
    cause = error.__cause__ or error.__context__
    return isinstance(cause, requests.Timeout) or (
        isinstance(cause, requests.ConnectionError) and TIMED_OUT in str(cause)
    )


def reason_of(error: Exception) -> str:
    """Return a few words about why an attempt failed: the store's own, if it said any."""
    cause = error.__cause__ or error.__context__
    if is_timeout(error):
        return "no answer came in time"
    if isinstance(cause, requests.ConnectionError):
        return "the connection was refused" if REFUSED in str(cause) else "the connection was lost"
    if isinstance(error, OSError) and is_full_disk(error):  # in the list of all files that shutil did not copy
        return os.strerror(errno.ENOSPC)
    text = first_line(error)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
