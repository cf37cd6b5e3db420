"""The way to the tracking store for commands that write runs: with it, or without it until `fmnist-exp sync`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn, cast

from mlflow import MlflowClient

from fmnist_exp import compat
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.tracking import store, transport
from fmnist_exp.tracking.redact import first_line
from fmnist_exp.tracking.spool import sync
from fmnist_exp.tracking.spool.left import patience
from fmnist_exp.tracking.spool.process import sender


class StoreAwayError(WorkError):
    """The store does not answer, so that what needs it must wait."""


@contextmanager
def needed() -> Iterator[None]:
    """Replace an error of the connection to the store by a StoreAwayError, after FMNIST_EXP_SEND_SECONDS at most."""
    try:
        with compat.retrying(patience()):
            yield
    except Exception as error:  # each kind of artifact store has errors of its own
        if not transport.is_lost(error):
            raise
        raise StoreAwayError(f"the tracking store does not answer: {first_line(error)}") from error


def connect(*, offline: bool = False) -> MlflowClient:
    """Return a client of the store in use, after checking the store and sending it what earlier commands left.

    With `offline`, the store gets nothing and is not asked anything: everything stays in the spool, and the client
    refuses every request. Raises RequestError if the store cannot be used.
    """
    sender().offline = offline
    if offline:
        store.configure()
        return client()
    found = store.connect()
    sync.adopt(found)
    return found


def client() -> MlflowClient:
    """Return a client of the store in use, without checking the store."""
    return cast("MlflowClient", _Absent()) if sender().offline else store.client()


class _Absent:
    """A client of a store that must not be asked anything."""

    @property
    def tracking_uri(self) -> str:
        return store.address()

    def __getattr__(self, name: str) -> NoReturn:
        raise RequestError("--offline sends no request to the tracking store, which this needs; leave --offline out")
