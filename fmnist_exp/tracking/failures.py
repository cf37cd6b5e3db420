"""Explain errors of libraries in one sentence, and keep secrets out of everything that Python itself reports.

Each library is known by the names of its error classes, so that explaining an error imports none of them.
"""

import logging
import os
import sys
import threading
import traceback
from types import TracebackType
from typing import NamedTuple

from fmnist_exp.backend import interrupts
from fmnist_exp.errors import RequestError, WorkError, is_full_disk
from fmnist_exp.tracking import escape
from fmnist_exp.tracking.redact import first_line, without_secrets

DEBUG = "FMNIST_EXP_DEBUG"  # environment variable: show the traceback of every error
# after these words, MLflow's messages quote a page that is no answer, or give advice that may be wrong
QUOTED = " Response body: ", " Take a backup of your database"
ROOM = "make room"  # the advice about a full disk
LONGEST = 400  # characters of a library's message, which may quote a whole page


class Explanation(NamedTuple):
    """A sentence that explains an error, in two parts: its meaning, and advice."""

    meaning: str  # with {reason} for the library's own words
    advice: str


_AGAIN = "then run the command again"
_DATABASE = Explanation("a database failed: {reason}", f"check that it runs and that its address is right, {_AGAIN}")
_NETWORK = Explanation("a connection failed: {reason}", f"check that the server runs and can be reached, {_AGAIN}")
_STORE = Explanation("the tracking store failed: {reason}", f"check MLFLOW_TRACKING_URI and the server, {_AGAIN}")
_STUDY = Explanation("the study failed: {reason}", "run the command again, or with another --study")
_FILE = Explanation("a file or a device failed: {reason}", f"check that it exists and may be used, {_AGAIN}")
_DAMAGED = Explanation("a file is damaged: {reason}", f"replace it, {_AGAIN}")
_MEMORY = Explanation("there is not enough memory: {reason}", "use fewer --workers or a smaller training.batch_size")
_FORBIDDEN = Explanation(
    "the tracking server does not permit this to its user: {reason}", "ask for the permission EDIT"
)
_WORKERS = Explanation("the workers of the search are gone: {reason}", f"check the Dask scheduler, {_AGAIN}")
_TORN = Explanation(
    "a database is damaged ({reason})", "put a copy of its file back, or move it away to begin with a new one"
)
_IN_USE = Explanation("a database is in use ({reason})", f"wait for the process that writes to it, or end it, {_AGAIN}")
_RELEASE = Explanation(
    "a database has the tables of another release of its library ({reason})",
    "install the release that made it or, if that is older, upgrade a copy with `mlflow db upgrade ADDRESS` or"
    f" `optuna storage upgrade --storage ADDRESS`, {_AGAIN}",
)
# words in an error's message → explanation, whatever the class is
WORDS = {
    **dict.fromkeys(("malformed", "file is not a database", "disk I/O error", "no such table"), _TORN),
    "database is locked": _IN_USE,
    "out-of-date database schema": _RELEASE,  # MLflow, also about a newer one
    "Can't locate revision": _RELEASE,  # Alembic
    "INVALID_PROTOBUF": _DAMAGED,  # ONNX Runtime
    "no longer compatible with the table schema": _RELEASE,  # Optuna, in a plain RuntimeError
}
# class → explanation; the first class in an error's method resolution order that stands here decides
CLASSES = {
    "mlflow.exceptions.MlflowException": _STORE,
    "google.protobuf.json_format.Error": _STORE,  # an answer in JSON that is not MLflow's
    "sqlalchemy.exc.SQLAlchemyError": _DATABASE,
    "optuna.exceptions.StorageInternalError": _DATABASE,
    "optuna.exceptions.OptunaError": _STUDY,
    "alembic.util.exc.CommandError": _DATABASE,
    "sqlite3.Error": _DATABASE,
    "requests.exceptions.RequestException": _NETWORK,
    "urllib3.exceptions.HTTPError": _NETWORK,
    "botocore.exceptions.BotoCoreError": _NETWORK,
    "botocore.exceptions.ClientError": _NETWORK,
    "distributed.comm.core.CommClosedError": _NETWORK,
    "tornado.iostream.StreamClosedError": _NETWORK,
    "distributed.client.FutureCancelledError": _WORKERS,
    "distributed.scheduler.KilledWorker": _WORKERS,
    "builtins.ConnectionError": _NETWORK,
    "builtins.TimeoutError": _NETWORK,
    "zipfile.BadZipFile": _DAMAGED,
    "builtins.MemoryError": _MEMORY,
    "tensorflow.python.framework.errors_impl.ResourceExhaustedError": _MEMORY,
    "builtins.ImportError": Explanation("a library is missing: {reason}", f"install it, {_AGAIN}"),
    "builtins.OSError": _FILE,
}


def explain(error: BaseException) -> str | None:
    """Return one sentence about an error, with advice, or None for an error that nobody expects."""
    if isinstance(error, RequestError | WorkError) and (ROOM in first_line(error) or not is_full_disk(error)):
        return first_line(error)
    found = _explanation(error)
    return f"{found.meaning.format(reason=_reason(error))}; {found.advice}" if found else None


def advised(error: BaseException) -> str:
    """Return the reason of a library's error and what to do, for a sentence that says what failed."""
    found = _explanation(error)
    return f"{_reason(error)}; {found.advice}" if found else _reason(error)


def _explanation(error: BaseException) -> Explanation | None:
    if is_full_disk(error):
        return Explanation("the disk is full ({reason})", f"{ROOM}, {_AGAIN}")
    reason = told(error)
    for words, found in WORDS.items():
        if words in reason:
            return found
    if getattr(error, "error_code", "") == "PERMISSION_DENIED":
        return _FORBIDDEN
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
    return next((CLASSES[name] for name in names if name in CLASSES), None)


def _reason(error: BaseException) -> str:
    """Return what the library says, without the parts that help nobody."""
    reason = told(error)
    for rest in QUOTED:
        reason = reason.partition(rest)[0]
    return (f"{reason[:LONGEST]}…" if len(reason) > LONGEST else reason).rstrip(".")


def told(error: BaseException) -> str:
    """Return the first line of an error's message, or of the database's own error if Optuna has wrapped it."""
    wrapped = type(error).__name__ == "StorageInternalError" and error.__cause__
    return first_line(wrapped or error)


def reason_of(error: BaseException) -> str:
    """Return one sentence about any error, for the tag of a run and for messages between processes."""
    return explain(error) or first_line(error)


def debugging() -> bool:
    """Return True if FMNIST_EXP_DEBUG asks for tracebacks."""
    return os.environ.get(DEBUG, "").lower() not in ("", "0", "false", "no", "off")


def trace(error: BaseException) -> str:
    """Return the error's traceback without secrets."""
    return escape.terminal(without_secrets("".join(traceback.format_exception(error))))


def install() -> None:
    """Remove secrets from all log records, warnings and uncaught errors of this process.

    Libraries have handlers of their own that pass nothing on to the root logger, so that secrets are removed where
    records are made.
    """
    logging.setLogRecordFactory(log_record)
    for name, is_news in FILTERS.items():
        logging.getLogger(name).addFilter(is_news)
    logging.captureWarnings(True)
    sys.excepthook = _report
    sys.unraisablehook = _report_ignored
    threading.excepthook = lambda found: _report(found.exc_type, found.exc_value, found.exc_traceback)


def _report_ignored(found: "sys.UnraisableHookArgs") -> None:
    """Report an error of a destructor, except at the end of Python, when half of it is gone already."""
    if issubclass(found.exc_type, KeyboardInterrupt):
        interrupts.repeat()
    elif not sys.is_finalizing():
        _report(found.exc_type, found.exc_value, found.exc_traceback)


def log_record(*arguments: object, **options: object) -> logging.LogRecord:
    """Make a log record without secrets and, unless FMNIST_EXP_DEBUG asks for them, without tracebacks.

    A message that has no secret stays as it is, with its arguments, which some formatters read.
    """
    record = logging.LogRecord(*arguments, **options)  # type: ignore[arg-type]
    try:
        text = record.getMessage()
    except Exception:  # a message that does not fit its arguments; logging would print both
        text = f"{record.msg} {record.args}"
    if (shown := escape.terminal(without_secrets(text))) != text:
        record.msg, record.args = shown, ()
    if not debugging():
        record.exc_info = record.stack_info = None
    elif record.exc_info and record.exc_info[1] is not None:
        record.exc_text = trace(record.exc_info[1]).rstrip()
    if record.stack_info:
        record.stack_info = without_secrets(record.stack_info)
    return record


def _is_no_sql(record: logging.LogRecord) -> bool:
    """Return False for an error that MLflow logs with its whole SQL statement and then raises: the command tells it."""
    return debugging() or record.levelno < logging.ERROR


def _is_no_retry(record: logging.LogRecord) -> bool:
    """Return False for each of the warnings with which urllib3 repeats a request: the spool tells of an outage once."""
    return debugging() or not str(record.msg).startswith("Retrying (")


FILTERS = {"mlflow.store.db.utils": _is_no_sql, "urllib3.connectionpool": _is_no_retry}  # by the name of the log


def _report(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    """Print an error that nobody has caught: in one sentence if it is a library's, otherwise with its traceback."""
    if sys.stderr is None or issubclass(kind, SystemExit):
        return
    error = (error or kind()).with_traceback(where)
    sentence = None if debugging() else explain(error)
    print(escape.terminal(sentence or trace(error).rstrip()), file=sys.stderr)
