"""The tracking store: find the one in use, check that it answers, and read or delete its files."""

import os
from collections.abc import Collection
from pathlib import Path

import mlflow
import requests
import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from fmnist_exp import compat
from fmnist_exp.errors import RequestError
from fmnist_exp.tracking.redact import first_line, without_secrets

TIMEOUT = 5  # seconds for a server or a database to answer; MLflow itself would retry for minutes


def connect() -> MlflowClient:
    """Return a client of the store that MLFLOW_TRACKING_URI names, or of the embedded one, after checking the store.

    Raises RequestError if the server does not answer or the store cannot be written.
    """
    uri = mlflow.get_tracking_uri()
    shown = without_secrets(uri)
    # MLflow's progress bars and addresses would break into the output of the commands
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    try:
        if uri.startswith(("http://", "https://")):
            _check_server(uri)
        elif uri.startswith("sqlite:///"):
            _check_writable(Path(uri.removeprefix("sqlite:///")))
        elif uri.startswith(("postgresql", "mysql")):
            _check_database(uri)
        client = MlflowClient()
        client.search_experiments(max_results=1)
    except requests.RequestException as error:
        raise RequestError(f"the tracking server {shown} does not answer; is MLFLOW_TRACKING_URI right?") from error
    except (MlflowException, SQLAlchemyError, ImportError, OSError) as error:
        raise RequestError(f"the tracking store {shown} cannot be used: {first_line(error)}") from error
    return client


def client() -> MlflowClient:
    """Return a client of the store in use, without checking the store."""
    return MlflowClient()


def address() -> str:
    """Return the address of the store in use, in a form that other processes of this machine can use."""
    uri = str(mlflow.get_tracking_uri())
    file = uri.removeprefix("sqlite:///")
    return uri if file == uri else f"sqlite:///{Path(file).absolute()}"


def use(uri: str) -> None:
    """Make this process use the store at `uri`. Raises RequestError if that is impossible from this machine."""
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
        raise RequestError(
            f"the tracking store {uri} is a file of another machine; start `mlflow server` and set MLFLOW_TRACKING_URI"
        )
    mlflow.set_tracking_uri(uri)
    connect()


def download_text(uri: str) -> str:
    """Return a text artifact such as `runs:/RUN_ID/experiment.yaml`. Raises RequestError if that is impossible."""
    connect()
    try:
        return str(mlflow.artifacts.load_text(uri))
    except (MlflowException, OSError) as error:
        raise RequestError(f"no artifact {uri}: {first_line(error)}") from error


def delete_files(client: MlflowClient, location: str, paths: Collection[str]) -> None:
    """Delete files below an artifact location, if they exist. The errors depend on the kind of store."""
    repository = compat.artifact_repository(location, client.tracking_uri)
    for folder in sorted({path.rpartition("/")[0] for path in paths}):
        for path in sorted({entry.path for entry in repository.list_artifacts(folder)} & set(paths)):
            repository.delete_artifacts(path)


def _check_server(uri: str) -> None:
    """Raise requests.RequestException unless the server answers."""
    health = requests.get(f"{uri}/health", timeout=TIMEOUT)
    if health.status_code >= 500:
        raise requests.HTTPError(f"{health.status_code} {health.reason}")


def _check_writable(database: Path) -> None:
    """Raise PermissionError if the database or the folder of the artifacts cannot be written."""
    for path in (database, database.parent / "mlruns"):
        found = path if path.exists() else database.parent
        if not os.access(found, os.W_OK):
            raise PermissionError(f"{found} cannot be written")


def _check_database(uri: str) -> None:
    """Raise SQLAlchemyError unless the database answers."""
    engine = sqlalchemy.create_engine(uri, connect_args={"connect_timeout": TIMEOUT})
    try:
        engine.connect().close()
    finally:
        engine.dispose()
