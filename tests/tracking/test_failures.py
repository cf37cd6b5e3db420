"""Errors of libraries are explained in one sentence, and nothing that Python reports has a secret."""

import errno
import logging
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import alembic.util.exc
import mlflow
import optuna
import pytest
import requests
import sqlalchemy
import urllib3

from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.tracking import failures

SECRET = "Hunter2/canary"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (mlflow.MlflowException(f"API request to http://me:{SECRET}@host/x failed"), ["tracking store", "http://***@"]),
        (sqlalchemy.exc.OperationalError("SELECT 1", {}, OSError("gone")), ["database", "gone"]),
        (optuna.exceptions.StorageInternalError("An exception"), ["database"]),
        (alembic.util.exc.CommandError("Can't locate revision"), ["database", "revision"]),
        (RuntimeError("optuna 5 is no longer compatible with the table schema"), ["another release", "upgrade"]),
        (sqlalchemy.exc.OperationalError("SELECT 1", {}, OSError("database is locked")), ["in use", "wait"]),
        (requests.ConnectionError("refused"), ["connection", "refused"]),
        (urllib3.exceptions.ProtocolError("cut"), ["connection", "cut"]),
        (ConnectionResetError("reset"), ["connection", "reset"]),
        (FileNotFoundError(errno.ENOENT, "No such file", "model.keras"), ["file", "model.keras"]),
        (OSError(errno.ENOSPC, "No space left on device"), ["disk is full", "make room"]),
        (zipfile.BadZipFile("File is not a zip file"), ["damaged", "not a zip"]),
        (MemoryError(), ["memory", "batch_size"]),
        (ModuleNotFoundError("No module named 'boto3'"), ["library", "boto3", "install"]),
        (WorkError("the fit failed"), ["the fit failed"]),
        (RequestError("no such file"), ["no such file"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_of_libraries_are_one_sentence(error, words):
    said = failures.explain(error)
    assert said is not None
    assert "\n" not in said
    assert SECRET not in said
    for word in words:
        assert word in said


def test_a_long_message_is_cut():
    said = failures.explain(OSError("x" * 10_000))
    assert said is not None
    assert len(said) < 600


def test_a_full_disk_behind_an_error_of_ours_is_told_once():
    error = WorkError("version 1 cannot be deleted")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    sentence = "the disk is full (version 1 cannot be deleted); make room, then run the command again"
    assert failures.explain(error) == sentence
    told = WorkError(sentence)
    told.__cause__ = error
    assert failures.explain(told) == sentence


def test_a_bug_of_ours_is_not_explained():
    assert failures.explain(KeyError("x")) is None
    assert failures.reason_of(KeyError("x")) == "'x'"


def test_a_traceback_has_no_secret():
    try:
        raise ValueError(f"no http://me:{SECRET}@host")
    except ValueError as error:
        shown = failures.trace(error)
    assert "ValueError: no http://***@host" in shown
    assert "test_failures.py" in shown
    assert SECRET not in shown


CODE = """
import logging, os, sys, threading, warnings
from fmnist_exp.tracking import failures, redact
logging.basicConfig(format="%(message)s")
failures.install()
secret = os.environ["MLFLOW_TRACKING_PASSWORD"]
theirs = logging.getLogger("theirs")  # like those of MLflow and Optuna, which pass nothing on
theirs.addHandler(logging.StreamHandler())
theirs.propagate = False
theirs.warning("log 1 %s %d", secret, 5)
theirs.warning("log 2 %s %d", "nothing", 5)
theirs.warning("log 3 %d", secret)
try:
    int(secret)
except ValueError:
    theirs.exception("log 4", stack_info=True)
warnings.warn("warning " + secret)
logging.getLogger("urllib3.connectionpool").warning("Retrying (%r) after connection broken by %r: %s", 5, secret, "/x")
thread = threading.Thread(target=int, args=["thread " + secret])
thread.start(); thread.join()
class Bad:
    def __del__(self):
        raise KeyError("deleted " + secret)
Bad()
raise RuntimeError("main " + secret)
"""


def test_what_python_reports_has_no_secret():
    environment = {**os.environ, "MLFLOW_TRACKING_PASSWORD": SECRET, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1
    assert SECRET not in done.stderr
    assert "Retrying" not in done.stderr
    for words in ("log 1 *** 5", "log 2 nothing 5", "log 3 %d", "log 4", "warning ***", "thread ***", "deleted ***"):
        assert words in done.stderr, words
    assert done.stderr.strip().endswith("RuntimeError: main ***")


def test_records_without_secrets_keep_their_arguments():
    """Some formatters read them, for example uvicorn's."""
    before = logging.getLogRecordFactory()
    try:
        logging.setLogRecordFactory(failures.log_record)
        record = logging.getLogger("x").makeRecord("x", logging.INFO, __file__, 1, "%s and %d", ("a", 1), None)
    finally:
        logging.setLogRecordFactory(before)
    assert (record.args, record.getMessage()) == (("a", 1), "a and 1")
