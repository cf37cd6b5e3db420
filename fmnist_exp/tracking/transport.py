"""Tell an error of the connection to a store from an answer of the store."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import requests
import urllib3
from mlflow.exceptions import MlflowException

PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}  # beside all of 500 and above
PASSING_CODES = {"TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED"}

MISSING = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "NOT_FOUND"}  # codes for an id that does not exist

SEVERAL = "The following failures occurred"  # MLflow's list of the files that were not carried, in words
CLIENT_ERROR = " Client Error: "  # in the text of an answer with a status from 400 to 499


def is_lost(error: BaseException | None) -> bool:
    """Return True if there was no answer, or only half of one, or one that says that the store cannot work now.

    The same call may then succeed later, and it is not known whether the store has taken it.
    """
    while error is not None:
        if isinstance(error, requests.RequestException) and error.response is not None:
            status = error.response.status_code
            return status in PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR
        if isinstance(error, requests.RequestException):
            return not isinstance(error, ValueError) or isinstance(error, requests.JSONDecodeError)  # a wrong address
        if isinstance(error, urllib3.exceptions.HTTPError | ConnectionError | TimeoutError):
            return True
        if isinstance(error, MlflowException) and error.error_code in PASSING_CODES:
            return True
        if isinstance(error, MlflowException) and error.message.startswith(SEVERAL):
            return CLIENT_ERROR not in error.message
        # MLflow raises its errors of transport while it handles those of requests, and does not name them as the cause
        error = error.__cause__ or (error.__context__ if isinstance(error, MlflowException) else None)
    return False


def is_missing(error: MlflowException) -> bool:
    """Return True if the store says that what was asked for does not exist, and False for all other trouble."""
    return error.error_code in MISSING


@contextmanager
def unless_gone() -> Iterator[None]:
    """Let the deletion of something pass that is gone already.

    MLflow sends a deletion again when its answer was lost, and a proxy may send it twice.
    """
    try:
        yield
    except MlflowException as error:
        if not is_missing(error):
            raise
