"""Check an experiment against the data and the tracking store, and complete it, before a run starts.

What can be checked without either, such as names and ranges of fields, is checked when the experiment's file is read.
"""

from __future__ import annotations

from dataclasses import dataclass

from mlflow import MlflowClient

from fmnist_exp import models
from fmnist_exp.backend import seeds
from fmnist_exp.config.schema import ExperimentConfig, ModelConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.models import transfer
from fmnist_exp.registry import lineage
from fmnist_exp.tracking import store
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tracking.run import Run
from fmnist_exp.training import fit as fitting
from fmnist_exp.training import precision
from fmnist_exp.training.precision import Choice


@dataclass(frozen=True)
class Resolved:
    """An experiment that can be run as it is.

    Attributes:
        config: The experiment with versions in place of aliases and a precision in place of `auto`, so that it means
            the same for ever.
        client: The client of the tracking store.
        choice: The precision that was chosen; None if the experiment names one.
    """

    config: ExperimentConfig
    client: MlflowClient
    choice: Choice | None


def resolve(
    config: ExperimentConfig, data: FashionMNIST, client: MlflowClient | None = None, *, keep_auto: bool = False
) -> Resolved:
    """Check whether an experiment can be run on these images and with this tracking store, and complete it.

    Args:
        config: The experiment.
        data: Its images.
        client: The client of the tracking store. None: connect to the store in use, but only after the checks that
            do not need it, because an embedded store is created when it is first used.
        keep_auto: Leave training.precision=auto to `choose_precision`, for a search, whose study remembers the choice.

    Raises:
        RequestError: If the experiment cannot be run.
        WorkError: If a model that it names cannot be loaded.
    """
    models.check(config.model)
    fitting.check(config.training, data)
    client = client or store.connect()
    model = _without_aliases(config.model, data, client)
    _check_transfer(model, config.seed, client)
    config = config.model_copy(update={"model": model})
    if keep_auto:
        return Resolved(config, client, None)
    config, choice = choose_precision(config, data)
    return Resolved(config, client, choice)


def choose_precision(
    config: ExperimentConfig, data: FashionMNIST, remembered: str | None = None
) -> tuple[ExperimentConfig, Choice | None]:
    """Return the experiment with a precision in place of `auto`, and the choice; None if there was none to make.

    Args:
        config: The experiment.
        data: Its images.
        remembered: An earlier choice that is to be repeated. None: the faster precision, measured now.
    """
    if config.training.precision != "auto":
        return config, None
    choice = Choice(remembered, {}, None) if remembered else precision.choose(config, data)
    return precision.with_precision(config, choice.precision), choice


def log_choice(run: Run, choice: Choice | None) -> None:
    """Log the precision that was chosen, if any, and how fast the network is in each one, if that was measured."""
    if choice is not None:
        run.set_tags({Tag.PRECISION: choice.precision})
        run.log_metrics(choice.metrics())


def _without_aliases(model: ModelConfig, data: FashionMNIST, client: MlflowClient) -> ModelConfig:
    """Return the configuration with versions in place of aliases. Each model must not know the validation images."""
    members = tuple(lineage.find_trained_on(client, uri, data).uri for uri in model.members)
    warm_start = lineage.find_trained_on(client, model.warm_start, data).uri if model.warm_start else None
    return model.model_copy(update={"members": members, "warm_start": warm_start})


def _check_transfer(model: ModelConfig, seed: int, client: MlflowClient) -> None:
    """Raise RequestError if the weights of model.warm_start do not fit, or model.frozen leaves no layer to train."""
    if not (model.warm_start or model.frozen):
        return
    seeds.prepare(seed, "float32")
    network = models.build(model)
    transfer.freeze(network, model.frozen)
    if model.warm_start:
        transfer.copy_weights(network, lineage.find(client, model.warm_start).load_keras(), model.warm_start)
