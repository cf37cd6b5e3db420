"""Log a model, copy the files of a logged model into a private folder, and delete them."""

import errno
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.models import Model

from fmnist_exp import compat
from fmnist_exp.errors import WorkError, is_full_disk
from fmnist_exp.tracking import store
from fmnist_exp.tracking.access import StoreAwayError
from fmnist_exp.tracking.names import LoggedModelTag, ModelName
from fmnist_exp.tracking.redact import first_line, without_secrets
from fmnist_exp.tracking.spool import ids, sync
from fmnist_exp.tracking.spool.left import patience
from fmnist_exp.tracking.spool.process import sender
from fmnist_exp.tracking.writing import Run, param_text

LEFT_BY_MLFLOW = "registered_model_meta"  # beside MLmodel, when MLflow loads a version in place
BYTE_CODE = "__pycache__"
LOOK_SECONDS = 0.5  # between two looks whether the store has a model


def log(run: Run, write: Callable[[Path, Model], str], params: Mapping[str, object]) -> str:
    """Log a model to a run under the name `model`, with these params, and return the model's id.

    `write` writes the model into a folder that does not exist yet, with MLflow's description of the model, and returns
    the public key of the key that must sign it, or an empty text. The ids, the checksums and the signature are added
    when the store gets the model. As long as the store does not answer, the returned id is a local one.
    """
    texts = {key: without_secrets(param_text(value)) for key, value in params.items()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        about = {"name": ModelName.MODEL, "params": texts, "model_type": "keras", "step": 0}
        about |= {"replaces": run.resumed}  # an earlier process may have been killed just after it logged the model
        return run.log_model(folder, {**about, "signer": write(folder, Model())})


def log_checkpoint(run: Run, write: Callable[[Path, Model], str], step: int) -> None:
    """Log a model to a run under the name `checkpoint`, in place of that of an earlier step, without waiting for it."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "model"
        about = {"name": ModelName.CHECKPOINT, "model_type": "keras", "step": step, "replaces": True}
        run.log_model(folder, {**about, "signer": write(folder, Model())}, wait=False)


def arrived(client: MlflowClient, model_id: str) -> str:
    """Return the id of a logged model in the store, once the store has it and all that this process wrote.

    Another process of this machine may be sending the model. Raises StoreAwayError if the store stops answering.
    """
    until = time.monotonic() + patience()
    while not sender().offline and not sender().drain():
        if not ids.is_local(model_id):
            return model_id
        sync.adopt(client)  # the process that wrote the model may be gone
        found = ids.resolve(client, model_id)
        if found and client.get_logged_model(found).status == LoggedModelStatus.READY:
            return found
        if time.monotonic() > until:
            break
        time.sleep(LOOK_SECONDS)
    raise StoreAwayError(f"the tracking store does not have the model {model_id} yet")


def copy_files(client: MlflowClient, model: LoggedModel, folder: Path, expected: Collection[str], limit: int) -> None:
    """Copy the files of a logged model into an empty folder, where nobody changes them while they are read.

    Nothing is copied if the model has a file that is not among the `expected` paths, or over `limit` bytes. What MLflow
    and Python leave beside the files when somebody loads the model in place is not copied. The caller must check that
    the folder has the files that it needs. Raises WorkError, and OSError if the disk of the folder is full: the model
    is whole then.
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
        if is_full_disk(error):  # MLflow's error names it in one of many lines
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
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


def delete(client: MlflowClient, model: LoggedModel) -> None:
    """Delete a logged model and all of its files. Raises WorkError on failure."""
    try:
        repository = compat.artifact_repository(str(model.artifact_location), client.tracking_uri)
        for entry in repository.list_artifacts():
            repository.delete_artifacts(entry.path)
        client.delete_logged_model(model.model_id)
    except Exception as error:  # each kind of artifact store has errors of its own
        raise WorkError(f"model {model.model_id} cannot be deleted: {first_line(error)}") from error
