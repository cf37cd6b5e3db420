"""Check a configuration against the data and the tracking store, and complete it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fmnist_exp import models
from fmnist_exp.backend import seeds
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.models import transfer
from fmnist_exp.registry import origins
from fmnist_exp.training import fit as fitting

if TYPE_CHECKING:
    from mlflow import MlflowClient


def check(client: MlflowClient, config: ExperimentConfig, data: FashionMNIST) -> ExperimentConfig:
    """Check what the schema cannot see, before anything is written.

    Returns:
        The experiment with aliases of other models replaced by their versions, so that it means the same for ever.

    Raises:
        RequestError: it cannot be run.
    """
    models.check(config.model)
    fitting.check(config.training, data)
    members = tuple(origins.find_apart(client, uri, data).uri for uri in config.model.members)
    warm = origins.find_apart(client, config.model.warm_start, data) if config.model.warm_start else None
    if warm or config.model.frozen:
        seeds.prepare(config.seed, "float32")
        model = models.build(config.model)
        transfer.freeze(model, config.model.frozen)
        if warm:
            transfer.copy_weights(model, origins.load(warm), warm.uri)
    found = {"members": members, "warm_start": warm.uri if warm else None}
    return config.model_copy(update={"model": config.model.model_copy(update=found)})
