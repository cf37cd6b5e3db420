"""Where a version comes from: its run, the images it was fitted on, and the model that speaks for it on validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.config.schema import DataConfig
from fmnist_exp.data import dataset
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.registry import versions
from fmnist_exp.registry.origins import digests
from fmnist_exp.tracking.redact import first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

    from fmnist_exp.data.dataset import FashionMNIST

REFIT_OF = "refit_of"  # tag of a version that was fitted again on all images: the run it was fitted again from
RUN_REFIT_OF = f"fmnist.{REFIT_OF}"  # the same on the run that fitted it again
BATCH = 500  # images; a convolution's maps of 10,000 at once would take gigabytes


@dataclass(frozen=True)
class Lineage:
    """A version with the run that knows which images it was not trained on.

    For a model fitted again on all images, that is the run it was fitted again from, and the model of that run.
    """

    version: ModelVersion
    run_id: str
    held_out_uri: str  # of the model of that run; empty if it is the version itself
    params: Mapping[str, str]  # of the run
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    digests: Mapping[str, str]  # of the run's images: training, validation

    @property
    def number(self) -> str:
        """The version's number."""
        return str(self.version.version)

    @property
    def refit(self) -> bool:
        """Whether the version itself was fitted on all images."""
        return bool(self.held_out_uri)

    @property
    def model_id(self) -> str | None:
        """The logged model behind the version, where it has one."""
        return versions.logged_model(self.version)


def trace(client: MlflowClient, version: ModelVersion) -> Lineage:
    """Look up where a version comes from. Raises RequestError if its run is gone or was not made by this package."""
    from mlflow.exceptions import MlflowException

    refit_of = version.tags.get(REFIT_OF)
    run_id = refit_of or version.run_id or ""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise RequestError(f"version {version.version}: its run {run_id!r} is not in this tracking store") from error
    if not {"seed", "data.validation_fraction"} <= run.data.params.keys():
        raise RequestError(f"version {version.version}: its run {run_id} does not say which images it was trained on")
    held_out_uri = _model_of(run, str(version.version)) if refit_of else ""
    known = run.data
    return Lineage(version, run_id, held_out_uri, known.params, known.metrics, known.tags, digests(run))


def load_images(lineage: Lineage, source: str | None) -> FashionMNIST:
    """The images split as they were for the version's run.

    Raises:
        RequestError: the images at hand are others.
    """
    fraction = float(lineage.params["data.validation_fraction"])
    seed = lineage.params.get("data.split_seed") or lineage.params["seed"]
    found = dataset.load(DataConfig(source=source, validation_fraction=fraction), int(seed))
    if found.train.digest != lineage.digests.get("training"):
        raise RequestError(
            f"version {lineage.number} was trained on other images than those from {found.source};"
            " name the folder of its images with --data.source"
        )
    return found


class Answerer:
    """The predictor in a model's folder, loaded once. Raises WorkError if it cannot be loaded or asked."""

    def __init__(self, folder: Path, name: str) -> None:
        import mlflow

        self.name = name
        try:
            self.model: Any = mlflow.pyfunc.load_model(str(folder))
        except Exception as error:  # whatever is wrong with a model's files
            raise WorkError(f"{name} cannot be loaded: {first_line(error)}") from error

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities (N, 10) for uint8 images (N, 28, 28)."""
        try:
            parts = [self._ask(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
        except Exception as error:
            raise WorkError(f"{self.name} does not answer: {first_line(error)}") from error
        return np.concatenate(parts)

    def _ask(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        table = self.model.predict(pixels)
        columns = [f"p{label}" for label in range(len(dataset.CLASS_NAMES))]
        probabilities: NDArray[np.float32] = table[columns].to_numpy(np.float32)
        return probabilities


def open_version(version: ModelVersion) -> Answerer:
    """The version's predictor, its files checked. Raises WorkError."""
    return Answerer(versions.files(version), f"version {version.version}")


def open_held_out(lineage: Lineage) -> Answerer:
    """The predictor that validation images may be put to: the version's, or that of the run it was fitted again from.

    Raises WorkError.
    """
    if not lineage.refit:
        return open_version(lineage.version)
    return Answerer(versions.download(lineage.held_out_uri), f"the model of run {lineage.run_id}")


def _model_of(run: Run, number: str) -> str:
    outputs = run.outputs.model_outputs if run.outputs else []
    if not outputs:
        raise RequestError(f"version {number} was fitted again from run {run.info.run_id}, which has no model")
    return f"models:/{outputs[-1].model_id}"
