"""The tracking store: reached, checked, read. What is written goes through tracking.py."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fmnist_exp.errors import RequestError, WorkError

if TYPE_CHECKING:
    import keras
    from mlflow import MlflowClient

from fmnist_exp.tracking.redact import first_line, without_secrets

FULL = "No space left on device", "database or disk is full", "could not extend file"  # the system, SQLite, PostgreSQL


def connect() -> MlflowClient:
    """A client of the store that MLFLOW_TRACKING_URI names, or of the embedded one.

    Raises:
        RequestError: the server does not answer, or the store cannot be written.
    """
    import mlflow
    import requests
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    uri = mlflow.get_tracking_uri()
    shown = without_secrets(uri)
    if uri.startswith(("http://", "https://")):
        try:  # MLflow itself would try for minutes
            health = requests.get(f"{uri}/health", timeout=5)
            if health.status_code >= 500:
                raise requests.HTTPError(f"{health.status_code} {health.reason}")
        except requests.RequestException as error:
            raise RequestError(f"the tracking server {shown} does not answer; is MLFLOW_TRACKING_URI right?") from error
    # no bars and addresses in the midst of ours
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    try:
        if uri.startswith("sqlite:///"):
            _check_writable(Path(uri.removeprefix("sqlite:///")))
        elif uri.startswith(("postgresql", "mysql")):
            _check_answers(uri)
        client = mlflow.MlflowClient()
        client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        raise RequestError(f"the tracking store {shown} cannot be used: {first_line(error)}") from error
    return client


def client() -> MlflowClient:
    """A client of the store in use, unchecked."""
    import mlflow

    return mlflow.MlflowClient()


def address() -> str:
    """Address of the store in use, as other processes of this machine can use it too."""
    import mlflow

    uri = str(mlflow.get_tracking_uri())
    file = uri.removeprefix("sqlite:///")
    return uri if file == uri else f"sqlite:///{Path(file).absolute()}"


def use(uri: str) -> None:
    """Have this process use the store at `uri`. Raises RequestError if it cannot be used from here."""
    import mlflow

    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise RequestError(
            f"the tracking store {uri} is a file of another machine; start `mlflow server` and set MLFLOW_TRACKING_URI"
        )
    mlflow.set_tracking_uri(uri)
    connect()


def _check_writable(database: Path) -> None:
    """Raise PermissionError for what cannot be written: MLflow itself would try for two minutes."""
    artifacts = database.parent / "mlruns"
    for path in (
        database if database.exists() else database.parent,
        artifacts if artifacts.exists() else database.parent,
    ):
        if not os.access(path, os.W_OK):
            raise PermissionError(f"{path} cannot be written")


def _check_answers(database: str) -> None:
    """Raise SQLAlchemyError unless the database answers within seconds: MLflow itself would try for minutes."""
    import sqlalchemy

    engine = sqlalchemy.create_engine(database, connect_args={"connect_timeout": 5})
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def download_text(uri: str) -> str:
    """The text of an artifact, as `runs:/RUN_ID/experiment.yaml`. Raises RequestError if it cannot be had."""
    import mlflow
    from mlflow.exceptions import MlflowException

    connect()
    try:
        return str(mlflow.artifacts.load_text(uri))
    except (MlflowException, OSError) as error:
        raise RequestError(f"no artifact {uri}: {first_line(error)}") from error


def load_model(model_id: str) -> keras.Model:
    """The Keras model of a logged model."""
    import mlflow

    return mlflow.keras.load_model(f"models:/{model_id}")


def disk_is_full(error: BaseException | None) -> bool:
    """Whether a full disk is what caused an error, however many libraries have wrapped it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text = str(error)
        if getattr(error, "errno", None) == errno.ENOSPC or any(words in text for words in FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def explaining_full_disk(study: str) -> Iterator[None]:
    """Raise WorkError, one sentence, for whatever error the block raises because a disk is full."""
    try:
        yield
    except Exception as error:
        if not disk_is_full(error):
            raise
        raise WorkError(
            f"the disk is full ({first_line(error)}); make room and run the command again with --study {study}: all"
            " trials that ended are kept"
        ) from error
