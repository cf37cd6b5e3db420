"""Models that are logged already, to begin from or to put together: found by version, alias or run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.registry import versions
from fmnist_exp.tracking.redact import first_line

if TYPE_CHECKING:
    import keras
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

    from fmnist_exp.data.dataset import FashionMNIST

RUNS = "runs:/"


@dataclass(frozen=True)
class Origin:
    """A logged model, by an address that will always mean the same one."""

    uri: str  # models:/fashion-mnist/VERSION or runs:/RUN_ID
    version: ModelVersion | None
    training: str | None  # digest of the images that it was trained on
    params: Mapping[str, str]  # of its run

    def split(self) -> dict[str, str]:
        """The fields that divide the images as they were divided for it."""
        names = ("data.validation_fraction", "data.split_seed", "seed")
        fraction, split_seed, seed = (self.params.get(name, "") for name in names)
        return {names[0]: fraction, names[1]: split_seed or seed}

    def folder(self) -> Path:
        """Its files; a version's are those that were registered. Raises WorkError."""
        return versions.files(self.version) if self.version else versions.download(f"{self.uri}/model")


def find(client: MlflowClient, uri: str) -> Origin:
    """Look a model up by `models:/fashion-mnist/VERSION`, `models:/fashion-mnist@ALIAS` or `runs:/RUN_ID`.

    Raises:
        RequestError: there is none, with those that exist.
    """
    if uri.startswith(RUNS):
        run = _run(client, uri.removeprefix(RUNS).removesuffix("/model"), uri)
        if not (run.outputs and run.outputs.model_outputs):
            raise RequestError(f"model {uri!r}: the run has no model")
        return Origin(f"{RUNS}{run.info.run_id}", None, digests(run).get("training"), run.data.params)
    version = versions.find_uri(client, uri)
    # a model fitted again on all images names another run; its own is the one that says what it saw
    run = _run(client, version.run_id or "", uri)
    return Origin(f"models:/{versions.NAME}/{version.version}", version, digests(run).get("training"), run.data.params)


def find_apart(client: MlflowClient, uri: str, data: FashionMNIST) -> Origin:
    """A model that has not seen the validation images of `data`. Raises RequestError."""
    origin = find(client, uri)
    if origin.training != data.train.digest:
        raise RequestError(
            f"{uri} was trained on other images, so it may know those held out here for validation;"
            " give both the same data.split_seed and data.validation_fraction"
        )
    return origin


def load(origin: Origin) -> keras.Model:
    """The Keras model, in safe mode. Raises WorkError."""
    import mlflow

    try:
        return mlflow.keras.load_model(str(origin.folder()))
    except (OSError, ValueError, TypeError) as error:
        raise WorkError(f"{origin.uri} cannot be loaded: {first_line(error)}") from error


def digests(run: Run) -> Mapping[str, str]:
    """Of the run's images, by what they were for: training, validation, test."""
    datasets = run.inputs.dataset_inputs if run.inputs else []
    return {item.tags[0].value: item.dataset.digest for item in datasets if item.tags}


def _run(client: MlflowClient, run_id: str, uri: str) -> Run:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        raise RequestError(f"model {uri!r}: its run {run_id!r} is not in this tracking store") from error
