"""The tracking store: find the one in use, check that it answers, and read or delete its files."""

import os
import re
import tempfile
from collections.abc import Collection
from http import HTTPStatus
from pathlib import Path
from typing import Any

import mlflow
import requests
import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import ArgumentError

from fmnist_exp import compat
from fmnist_exp.errors import RequestError, is_full_disk
from fmnist_exp.tracking import failures, first_use, redact
from fmnist_exp.tracking.redact import first_line, public

TIMEOUT = 5  # seconds for a server or a database to answer; MLflow itself would retry for minutes
TEXT_BYTES = 2**20  # of an artifact that is read as text; an experiment has 4 KiB


def connect() -> MlflowClient:
    """Return a client of the store that MLFLOW_TRACKING_URI names, or of the embedded one, after checking the store.

    Raises RequestError if the server does not answer or refuses the credentials, or the store cannot be written.
    """
    uri = configure()
    try:
        if uri.startswith(("http://", "https://")):
            _check_server(uri)
        elif uri.startswith("sqlite:///"):
            _check_file(uri, Path(uri.removeprefix("sqlite:///")))
        elif uri.startswith(("postgresql", "mysql")):
            _check_database(uri, connect_timeout=TIMEOUT)
        with first_use.alone(uri):
            first_use.create(uri, compat.create_mlflow_tables)
            client = MlflowClient()
            client.search_experiments(max_results=1)
    except RequestError:
        raise
    except Exception as error:  # each kind of store has errors of its own, and so has what is none
        if is_full_disk(error):
            raise
        raise RequestError(f"the tracking store {public(uri)} cannot be used: {failures.advised(error)}") from error
    return client


def configure() -> str:
    """Prepare MLflow's client in this process, and return the address of the store in use."""
    uri = str(mlflow.get_tracking_uri())
    redact.remember(uri)
    redact.remember(mlflow.get_registry_uri())
    # MLflow's progress bars and addresses would break into the output of the commands
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    return uri


def client() -> MlflowClient:
    """Return a client of the store in use, without checking the store."""
    return MlflowClient()


def address() -> str:
    """Return the address of the store in use for other processes, without secrets; `use` is its counterpart."""
    uri = str(mlflow.get_tracking_uri())
    file = uri.removeprefix("sqlite:///")
    return public(uri) if file == uri else f"sqlite:///{Path(file).absolute()}"


def use(uri: str) -> None:
    """Make this process use the store that another process has named with `address`. It need not answer now.

    If secrets are missing in the address, this process must know the same address with them. Raises RequestError if the
    store cannot be used from this machine.
    """
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise RequestError(
            f"the tracking store {uri} is a file of another machine; start `mlflow server` and set MLFLOW_TRACKING_URI"
        )
    if redact.MASK not in uri:
        mlflow.set_tracking_uri(uri)
    elif public(mlflow.get_tracking_uri()) != uri:
        raise RequestError(
            f"the driver sends no secrets to workers; set MLFLOW_TRACKING_URI to {uri} here too, with the user and"
            f" password in the place of {redact.MASK}"
        )
    configure()


def engine(uri: str, **options: Any) -> sqlalchemy.Engine:
    """Return SQLAlchemy's engine for a database. Raises SQLAlchemyError, also if the port is no number."""
    try:
        return sqlalchemy.create_engine(uri, **options)
    except ValueError as error:
        reason = "its port is no number; write special characters of a password as in a URL, for example / as %2F"
        raise ArgumentError(reason) from error


def download_text(uri: str) -> str:
    """Return a text artifact such as `runs:/RUN_ID/experiment.yaml`. Raises RequestError if that is impossible."""
    connect()
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder))
            if (size := file.stat().st_size) > TEXT_BYTES:
                raise RequestError(f"{uri} has {size:,} bytes, and at most {TEXT_BYTES:,} are read")
            return file.read_text(encoding="utf-8")
    except (MlflowException, OSError, UnicodeDecodeError) as error:
        if is_full_disk(error):
            raise
        raise RequestError(f"no artifact {uri}: {first_line(error)}") from error


def delete_files(client: MlflowClient, location: str, paths: Collection[str]) -> None:
    """Delete files below an artifact location, if they exist. The errors depend on the kind of store."""
    repository = compat.artifact_repository(location, client.tracking_uri)
    for folder in sorted({path.rpartition("/")[0] for path in paths}):
        for path in sorted({entry.path for entry in repository.list_artifacts(folder)} & set(paths)):
            repository.delete_artifacts(path)


def size(client: MlflowClient, location: str, paths: Collection[str] | None = None) -> int:
    """Return the bytes of the files at these paths below an artifact location, or of all its files.

    The errors depend on the kind of store.
    """
    repository = compat.artifact_repository(location, client.tracking_uri)
    total = 0
    waiting = [""] if paths is None else sorted({path.rpartition("/")[0] for path in paths})
    while waiting:
        for entry in repository.list_artifacts(waiting.pop() or None):
            if entry.is_dir and paths is None:
                waiting.append(entry.path)
            elif not entry.is_dir and (paths is None or entry.path in paths):
                total += entry.file_size or 0
    return total


def _check_server(uri: str) -> None:
    """Raise RequestError unless the server answers and accepts the credentials."""
    server = f"the tracking server {public(uri)}"
    silent = f"{server} does not answer; is MLFLOW_TRACKING_URI right?"
    try:
        status = compat.mlflow_request(uri, "/api/2.0/mlflow/experiments/search", {"max_results": 1}, TIMEOUT)
    except MlflowException as error:
        if isinstance(error.__context__, requests.exceptions.SSLError):
            raise RequestError(
                f"{server} cannot be reached by TLS ({_tls_reason(error.__context__)}); set"
                " MLFLOW_TRACKING_SERVER_CERT_PATH to the file of the authority that signed its certificate, and"
                " MLFLOW_TRACKING_CLIENT_CERT_PATH if it asks for a certificate of yours"
            ) from error
        if isinstance(error.__context__, OSError) and not isinstance(error.__context__, requests.RequestException):
            raise  # a file of certificates that does not exist
        raise RequestError(silent) from error
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise RequestError(
            f"{server} refuses the credentials (HTTP status {status}); set MLFLOW_TRACKING_USERNAME and"
            " MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise RequestError(silent) from ConnectionError(f"HTTP status {status}")


def _tls_reason(error: BaseException) -> str:
    """Return OpenSSL's own words, which libraries wrap in several layers."""
    found = re.search(r"\[SSL[^\]]*\] ([^(\n']*)", str(error))
    return found[1].strip() if found else first_line(error)


def _check_file(uri: str, database: Path) -> None:
    """Raise an error unless the file of a database can be opened, and it and the folder of the artifacts be written."""
    for path in (database, database.parent / "mlruns"):
        found = path if path.exists() else database.parent
        if not os.access(found, os.W_OK):
            raise PermissionError(f"{found} cannot be written")
    if database.exists():
        _check_database(uri, timeout=TIMEOUT)  # MLflow would try to open it for minutes


def _check_database(uri: str, **options: int) -> None:
    """Raise SQLAlchemyError unless the database answers."""
    found = engine(uri, connect_args=options)
    try:
        found.connect().close()
    finally:
        found.dispose()
