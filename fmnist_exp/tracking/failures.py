"""Explain errors of libraries in one sentence, and keep secrets out of everything that Python itself reports.

Each library is known by the names of its error classes, so that explaining an error imports none of them.
"""

import logging
import os
import sys
import threading
import traceback
from types import TracebackType

from fmnist_exp.backend import interrupts
from fmnist_exp.errors import RequestError, WorkError, is_full_disk
from fmnist_exp.tracking import escape
from fmnist_exp.tracking.redact import first_line, without_secrets

DEBUG = "FMNIST_EXP_DEBUG"  # environment variable: show the traceback of every error
# how SQLite says that a file is damaged; one that was emptied has no tables
TORN = "malformed", "file is not a database", "disk I/O error", "no such table"
LONGEST = 400  # characters of a library's message, which may quote a whole page

_DATABASE = "a database failed: {reason}; check that it runs and that its address is right, then run the command again"
_NETWORK = "a connection failed: {reason}; check that the server runs and can be reached, then run the command again"
_MEMORY = "there is not enough memory: {reason}; use fewer --workers or a smaller training.batch_size"
_WORKERS = "the workers of the search are gone: {reason}; check the Dask scheduler, then run the command again"
# class → sentence; the first class in an error's method resolution order that stands here decides
SENTENCES = {
    "mlflow.exceptions.MlflowException": (
        "the tracking store failed: {reason}; check MLFLOW_TRACKING_URI and the server, then run the command again"
    ),
    "sqlalchemy.exc.SQLAlchemyError": _DATABASE,
    "optuna.exceptions.StorageInternalError": _DATABASE,
    "optuna.exceptions.OptunaError": "the study failed: {reason}; run the command again, or with another --study",
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
    "zipfile.BadZipFile": "a file is damaged: {reason}; replace it, then run the command again",
    "builtins.MemoryError": _MEMORY,
    "tensorflow.python.framework.errors_impl.ResourceExhaustedError": _MEMORY,
    "builtins.ImportError": "a library is missing: {reason}; install it, then run the command again",
    "builtins.OSError": (
        "a file or a device failed: {reason}; check that it exists and may be used, then run the command again"
    ),
}


def explain(error: BaseException) -> str | None:
    """Return one sentence about an error of a library, with advice, or None for an error that nobody expects."""
    if isinstance(error, RequestError | WorkError):
        return first_line(error)
    reason = told(error)
    if len(reason) > LONGEST:
        reason = f"{reason[:LONGEST]}…"
    if is_full_disk(error):
        return f"the disk is full ({reason}); make room, then run the command again"
    if any(words in reason for words in TORN):
        return f"a database is damaged ({reason}); put a copy of its file back, or move it away to begin with a new one"
    if getattr(error, "error_code", "") == "PERMISSION_DENIED":
        return f"the tracking server does not permit this to its user: {reason}; ask for the permission EDIT"
    for kind in type(error).__mro__:
        if sentence := SENTENCES.get(f"{kind.__module__}.{kind.__qualname__}"):
            return sentence.format(reason=reason.rstrip("."))
    return None


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
    logging.getLogger("mlflow.store.db.utils").addFilter(_is_not_told_by_us)
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


def _is_not_told_by_us(record: logging.LogRecord) -> bool:
    """Return False for an error that MLflow logs with its whole SQL statement and then raises: the command tells it."""
    return debugging() or record.levelno < logging.ERROR


def _report(kind: type[BaseException], error: BaseException | None, where: TracebackType | None) -> None:
    """Print an error that nobody has caught: in one sentence if it is a library's, otherwise with its traceback."""
    if sys.stderr is None or issubclass(kind, SystemExit):
        return
    error = (error or kind()).with_traceback(where)
    sentence = None if debugging() else explain(error)
    print(escape.terminal(sentence or trace(error).rstrip()), file=sys.stderr)
