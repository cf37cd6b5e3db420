"""Log a model, copy the files of a logged model into a private folder, and delete them."""

import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.models import Model

from fmnist_exp import compat
from fmnist_exp.errors import WorkError
from fmnist_exp.tracking import store
from fmnist_exp.tracking.names import LoggedModelTag
from fmnist_exp.tracking.redact import first_line, without_secrets
from fmnist_exp.tracking.run import Run, param_text

LEFT_BY_MLFLOW = "registered_model_meta"  # beside MLmodel, when MLflow loads a version in place
BYTE_CODE = "__pycache__"


def log(run: Run, write: Callable[[Path, Model], tuple[str, str]], params: Mapping[str, object]) -> str:
    """Log a model to a run under the name `model`, with these params, and return the model's id.

    `write` writes the model into a folder that does not exist yet, completes MLflow's description of the model, and
    returns the digest of its files and the signature of the digest, which may be empty.
    """
    client = run.client
    texts = {key: without_secrets(param_text(value)) for key, value in params.items()}
    logged = client.create_logged_model(run.experiment_id, "model", run.id, params=texts, model_type="keras")
    model_id = str(logged.model_id)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            location = logged.artifact_location
            metadata = Model(artifact_path=location, model_uuid=model_id, run_id=run.id, model_id=model_id)
            digest, signature = write(folder, metadata)
            client.log_model_artifacts(model_id, str(folder))
        tags = {LoggedModelTag.SHA256: digest, LoggedModelTag.SIGNATURE: signature}
        client.set_logged_model_tags(model_id, {str(key): value for key, value in tags.items() if value})
    except BaseException:
        client.finalize_logged_model(model_id, "FAILED")
        raise
    client.finalize_logged_model(model_id, "READY")
    run.log_output_model(model_id)
    return model_id


def copy_files(client: MlflowClient, model: LoggedModel, folder: Path, expected: Collection[str], limit: int) -> None:
    """Copy the files of a logged model into an empty folder, where nobody changes them while they are read.

    Nothing is copied if the model has a file that is not among the `expected` paths, or over `limit` bytes. What MLflow
    and Python leave beside the files when somebody loads the model in place is not copied. The caller must check that
    the folder has the files that it needs. Raises WorkError.
    """
    try:
        repository = compat.artifact_repository(str(model.artifact_location), client.tracking_uri)
        if (size := _examine(repository, expected)) > limit:
            raise WorkError(f"its files have {size:,} bytes, and at most {limit:,} are read")
        repository.download_artifacts("", str(folder))
        (folder / LEFT_BY_MLFLOW).unlink(missing_ok=True)
        for left in list(folder.rglob(BYTE_CODE)):
            shutil.rmtree(left)
    except WorkError:
        raise
    except Exception as error:  # each kind of artifact store has errors of its own
        raise WorkError(f"its files cannot be downloaded: {first_line(error)}") from error


def _examine(repository: Any, expected: Collection[str]) -> int:
    """Return the size of all files in bytes. Raises WorkError if there are others than the expected ones."""
    local, size = compat.local_folder(repository), 0
    folders = {str(parent) for path in expected for parent in PurePosixPath(path).parents}
    waiting: list[str | None] = [None]
    while waiting:
        for entry in repository.list_artifacts(waiting.pop()):
            if local:
                _check_plain(local / entry.path, entry.path)
            if entry.is_dir and entry.path in folders:
                waiting.append(entry.path)
            elif entry.is_dir and local and entry.path.startswith("code/") and entry.path.endswith(f"/{BYTE_CODE}"):
                size += _check_byte_code(local / entry.path, entry.path)
            elif not entry.is_dir and entry.path in {*expected, LEFT_BY_MLFLOW}:
                size += entry.file_size or 0
            else:
                kind = "folder" if entry.is_dir else "file"
                raise WorkError(f"it has the {kind} {entry.path}, which fmnist-exp does not write")
    return size


def _check_plain(path: Path, name: str) -> None:
    mode = path.lstat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise WorkError(f"{name} is not a plain file")


def _check_byte_code(folder: Path, name: str) -> int:
    """Return the size of a folder of byte code. Raises WorkError if Python would run it without checking its source.

    Python leaves such a folder beside the copied code when somebody lets MLflow load the model from a local store.
    """
    for file in folder.iterdir():
        _check_plain(file, f"{name}/{file.name}")
        with file.open("rb") as opened:
            flags = opened.read(8)[4:]
        if file.suffix != ".pyc" or flags != bytes(4):
            raise WorkError(f"{name}/{file.name} is byte code that Python would run without checking its source")
    return sum(file.stat().st_size for file in folder.iterdir())


def delete_files(client: MlflowClient, model_id: str, paths: Collection[str], reason: str) -> None:
    """Delete files of a logged model, if they exist, and record the reason in its tags. Raises WorkError on failure."""
    try:
        store.delete_files(client, client.get_logged_model(model_id).artifact_location, paths)
        client.set_logged_model_tags(model_id, {str(LoggedModelTag.WEIGHTS): f"deleted: {reason}"})
    except Exception as error:  # each kind of artifact store has errors of its own
        raise WorkError(f"the files of model {model_id} cannot be deleted: {first_line(error)}") from error
