"""The origin of a model: the run that trained it, the images that it was trained on, and its files."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import keras
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from fmnist_exp.config.schema import DataConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError
from fmnist_exp.registry import private_copy, versions
from fmnist_exp.registry.private_copy import Predictor, PrivateCopy
from fmnist_exp.tracking import store, transport
from fmnist_exp.tracking.names import VersionTag

RUNS = "runs:/"


@dataclass(frozen=True)
class TrainedModel:
    """A logged model and the run that trained it."""

    uri: str  # models:/fashion-mnist/VERSION or runs:/RUN_ID, which always name the same model
    run: Run
    version: ModelVersion | None = None

    def split_fields(self) -> dict[str, str]:
        """Return the fields of an experiment that split the images as they were split for this model."""
        params = self.run.data.params
        return {
            "data.validation_fraction": params.get("data.validation_fraction", ""),
            "data.gate_fraction": params.get("data.gate_fraction", "0"),  # runs without it kept no images for the gate
            "data.split_seed": params.get("data.split_seed") or params.get("seed", ""),
        }

    def split(self, data: FashionMNIST) -> FashionMNIST:
        """Return `data` split as for this model. Raises RequestError if the model was trained on other images."""
        fields = {name.removeprefix("data."): value for name, value in self.split_fields().items()}
        found = data.resplit(DataConfig.model_validate(fields), seed=0)  # the fields name the seed of the split
        if found.train.digest != digests(self.run).get("training"):
            raise RequestError(
                f"{self.uri} was trained on other images than those from {data.source};"
                " name the folder of its images with --data.source"
            )
        return found

    def opened(self) -> AbstractContextManager[PrivateCopy]:
        """Return a context manager that yields a verified copy of the model's files. Raises WorkError when entered."""
        if self.version:
            return versions.opened(store.client(), self.version)
        return private_copy.opened(store.client(), model_ids(self.run)[-1], self.uri)

    def load_keras(self) -> keras.Model:
        """Load the Keras model in safe mode. Raises WorkError."""
        with self.opened() as copy:
            return copy.keras()

    def load_predictor(self) -> Predictor:
        """Load the predictor. Raises WorkError."""
        with self.opened() as copy:
            return copy.predictor()


@dataclass(frozen=True)
class Lineage:
    """A version, and the model that stands in for it when the gate compares models on images that they have not seen.

    That model is the version itself or, if the version was refitted on all images, the model that it was refitted from.
    """

    version: ModelVersion
    held_out: TrainedModel
    run: Run  # that logged the version's own model

    @property
    def number(self) -> str:
        """The version's number."""
        return str(self.version.version)

    @property
    def served(self) -> TrainedModel:
        """The version's own model, which is the one that is served."""
        return TrainedModel(versions.uri(self.version), self.run, self.version)

    @property
    def refit(self) -> bool:
        """True if the version was refitted on all images."""
        return self.held_out.version is None

    @property
    def model_id(self) -> str | None:
        """The id of the logged model behind the version, if it has one."""
        return versions.logged_model(self.version)


def find(client: MlflowClient, uri: str) -> TrainedModel:
    """Return the model at `models:/fashion-mnist/VERSION`, `models:/fashion-mnist@ALIAS` or `runs:/RUN_ID`.

    The run of a refitted version is the run that refitted it, which records the images that the version was trained on.
    The run of a search stands for the run that trained the search's model, which may be such a refit.
    Raises RequestError, which names the models that exist.
    """
    if uri.startswith(RUNS):
        owner = f"model {uri!r}"
        return _model_of(client, _run(client, uri.removeprefix(RUNS).removesuffix("/model"), owner), owner)
    version = versions.find_uri(client, uri)
    return TrainedModel(versions.uri(version), _run(client, version.run_id or "", f"model {uri!r}"), version)


def find_trained_on(client: MlflowClient, uri: str, data: FashionMNIST) -> TrainedModel:
    """Return the model at `uri` if it has seen no image that `data` holds out.

    Its training images must be those of `data`. If `data` holds out nothing, they may also be some of those.
    Raises RequestError if there is no such model, or if its training images are others.
    """
    found = find(client, uri)
    if digests(found.run).get("training") == data.train.digest:
        return found
    if len(data.validation.images) or len(data.gate.images):
        raise RequestError(
            f"{uri} was trained on other images, so it may know those held out here for validation;"
            " give both the same data.split_seed, data.validation_fraction and data.gate_fraction"
        )
    _check_split(found.run, uri)
    found.split(data)  # which compares the images that the origin was trained on
    return found


def trace(client: MlflowClient, version: ModelVersion) -> Lineage:
    """Return the lineage of a version. Raises RequestError if its run is gone, or this package did not make it."""
    refit_of, owner = version.tags.get(VersionTag.REFIT_OF), f"version {version.version}"
    own = _run(client, version.run_id or "", owner)
    run = _run(client, refit_of, owner) if refit_of else own
    _check_split(run, owner)
    judged = _model_of(client, run, owner) if refit_of else TrainedModel(versions.uri(version), own, version)
    return Lineage(version, judged, own)


def _check_split(run: Run, owner: str) -> None:
    if not {"seed", "data.validation_fraction"} <= run.data.params.keys():
        raise RequestError(f"{owner}: its run {run.info.run_id} does not say which images it was trained on")


def digests(run: Run) -> dict[str, str]:
    """Return the digests of a run's images by purpose: training, validation, test."""
    datasets = run.inputs.dataset_inputs if run.inputs else []
    return {item.tags[0].value: item.dataset.digest for item in datasets if item.tags}


def _model_of(client: MlflowClient, run: Run, owner: str) -> TrainedModel:
    """Return the model that a run ended with, and the run that trained it: a search has the model of another run."""
    if not model_ids(run):
        raise RequestError(f"run {run.info.run_id} has no model")
    try:
        source = client.get_logged_model(model_ids(run)[-1]).source_run_id
    except MlflowException as error:
        if not transport.is_missing(error):
            raise
        raise RequestError(f"{owner}: its model {model_ids(run)[-1]} is not in this tracking store") from error
    trained = _run(client, source, owner) if source and source != run.info.run_id else run
    return TrainedModel(f"{RUNS}{trained.info.run_id}", trained)


def model_ids(run: Run) -> list[str]:
    """Return the ids of the models that a run ended with; a model of a later step is a checkpoint."""
    outputs = run.outputs.model_outputs if run.outputs else []
    return [str(output.model_id) for output in outputs if output.step == 0]


def _run(client: MlflowClient, run_id: str, owner: str) -> Run:
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if not transport.is_missing(error):
            raise
        raise RequestError(f"{owner}: its run {run_id!r} is not in this tracking store") from error
