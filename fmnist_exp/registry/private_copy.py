"""The one way to a model's files: a private copy that is verified, inspected, and read by this package's own code.

Nothing that travels with a model is run: no copied code, no loader that MLmodel names, no saved graph, no pickle.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

from fmnist_exp.errors import WorkError, is_full_disk
from fmnist_exp.export import checksums, inspection, layout, signing
from fmnist_exp.tracking import models as logged_models
from fmnist_exp.tracking import transport
from fmnist_exp.tracking.names import LoggedModelTag
from fmnist_exp.tracking.redact import first_line
from fmnist_exp.tracking.spool import folder as spool
from fmnist_exp.tracking.spool import ids

if TYPE_CHECKING:
    import keras

    from fmnist_exp.serving import predictor

ADVICE = "put its files back, or name another model"

_inspected: set[str] = set()  # digests of the files that this process has found harmless


class Predictor:
    """The predictor of a model, which runs on ONNX Runtime. `name` is the model's name in errors."""

    def __init__(self, loaded: predictor.Predictor, name: str) -> None:
        self.loaded = loaded
        self.name = name

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities, (N, 10), for images (N, 28, 28). Raises WorkError if the model fails."""
        try:
            return self.loaded.probabilities(images)
        except Exception as error:  # ONNX Runtime raises errors of any kind
            raise WorkError(f"{self.name} cannot predict: {first_line(error)}") from error


@dataclass(frozen=True)
class PrivateCopy:
    """The verified files of a model in a folder that is deleted when its `with` block ends."""

    folder: Path
    name: str  # of the model, in errors
    model_id: str  # of the logged model

    def predictor(self, threads: int = 0) -> Predictor:
        """Load the predictor, which computes on `threads` threads; 0 stands for all cores. Raises WorkError."""
        from fmnist_exp.serving import predictor  # late: it takes ONNX Runtime, and commands print without it

        try:
            return Predictor(predictor.load(self.folder / "data", threads), self.name)
        except Exception as error:  # damaged files raise whatever their reader raises
            if is_full_disk(error):  # which says nothing about the model
                raise
            raise WorkError(f"{self.name} cannot be loaded: {first_line(error)}; {ADVICE}") from error

    def keras(self) -> keras.Model:
        """Load the Keras model in safe mode. Raises WorkError."""
        from fmnist_exp.export import network  # late: the server needs no Keras

        try:
            return network.load(self.folder / layout.KERAS_MODEL)
        except Exception as error:  # damaged files raise whatever their reader raises
            if is_full_disk(error):  # which says nothing about the model
                raise
            raise WorkError(f"{self.name} cannot be loaded: {first_line(error)}; {ADVICE}") from error


@dataclass(frozen=True)
class Voucher:
    """The tags that vouch for the files of a model: those of the version, or of the logged model without a version."""

    digest: str | None  # of the files; None if an earlier release logged the model, and nothing can be compared
    signature: str  # of the digest; empty if there is none
    owner: str  # the name that was signed with the digest


@contextmanager
def opened(
    client: MlflowClient, model_id: str, name: str = "", voucher: Voucher | None = None
) -> Iterator[PrivateCopy]:
    """Copy a logged model's files, verify and inspect the copy, and yield it until the block ends.

    Args:
        client: a client of the tracking store.
        model_id: id of the logged model.
        name: the model's name in errors; by default, its address.
        voucher: the tags of the version that is opened; with None, the tags of the logged model vouch for it.

    Raises:
        WorkError: the files cannot be downloaded, were changed, are not signed by a trusted key if there are trusted
            keys, or are not what this package writes.
        OSError: the disk is full.
    """
    name = name or f"models:/{model_id}"
    with tempfile.TemporaryDirectory(prefix="fmnist-exp-model-") as temporary:
        folder = Path(temporary)
        try:
            _copy(client, model_id, folder, voucher)
        except WorkError as error:
            raise WorkError(f"{name} cannot be loaded: {error}; {ADVICE}") from error
        try:
            _inspect(folder, name)
        except WorkError as error:
            raise WorkError(f"{error}; {ADVICE}") from error
        yield PrivateCopy(folder, name, model_id)


def _copy(client: MlflowClient, model_id: str, folder: Path, voucher: Voucher | None) -> None:
    """Copy the files into `folder`, and check that they are exactly those that were written by this package."""
    if ids.is_local(model_id):
        if _copy_unsent(model_id, folder):
            layout.check(folder)
            return
        model_id = ids.resolve(client, model_id) or model_id
    try:
        model = client.get_logged_model(model_id)
    except MlflowException as error:
        if not transport.is_missing(error):
            raise
        raise WorkError(f"its logged model {model_id!r} is not in this tracking store") from error
    if deleted := model.tags.get(LoggedModelTag.WEIGHTS):
        raise WorkError(f"its weights were {deleted}")
    logged_models.copy_files(client, model, folder, layout.FILES, inspection.LARGEST)
    layout.check(folder)
    if voucher is None:
        own = model.tags.get(LoggedModelTag.SHA256), model.tags.get(LoggedModelTag.SIGNATURE, "")
        voucher = Voucher(*own, owner=model_id)
    if voucher.digest is not None:
        checksums.verify(folder, voucher.digest)
    signing.verify(voucher.owner, voucher.digest or "", voucher.signature)


def _copy_unsent(model_id: str, folder: Path) -> bool:
    """Copy the files of a model that this machine has not sent to the store yet; False if there is none."""
    files = spool.model_files(model_id)
    try:
        return files is not None and shutil.copytree(files, folder, dirs_exist_ok=True) == folder
    except OSError as error:
        if is_full_disk(error):
            raise
        return False  # it is being sent at this moment


def _inspect(folder: Path, name: str) -> None:
    """Raise WorkError unless the files are harmless. This takes a second, so equal files are inspected only once."""
    digest = checksums.digest(folder)
    if digest in _inspected:
        return
    inspection.inspect(folder, name)
    try:
        layout.check_network(folder)
    except WorkError as error:
        raise WorkError(f"{name} cannot be loaded: {error}") from error
    _inspected.add(digest)
