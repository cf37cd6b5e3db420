"""Check an experiment against the data and the tracking store, and complete it, before a run starts.

What can be checked without either, such as names and ranges of fields, is checked when the experiment's file is read.
"""

import logging
from dataclasses import dataclass
from typing import Any

from mlflow import MlflowClient

from fmnist_exp import models
from fmnist_exp.backend import seeds
from fmnist_exp.config import search as searched
from fmnist_exp.config.files import override
from fmnist_exp.config.schema import ExperimentConfig, ModelConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.export import signing
from fmnist_exp.models import transfer
from fmnist_exp.registry import lineage
from fmnist_exp.tracking import access
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tracking.run import Run
from fmnist_exp.training import precision
from fmnist_exp.training.precision import Choice

ORIGINS = ("members", "warm_start")  # the fields of a model that name trained models

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resolved:
    """An experiment that can be run as it is."""

    config: ExperimentConfig  # names versions instead of aliases and a fixed precision, so that it can be repeated
    client: MlflowClient
    choice: Choice | None  # of a precision; None if the experiment names one


def resolve(
    config: ExperimentConfig,
    data: FashionMNIST,
    client: MlflowClient | None = None,
    *,
    offline: bool = False,
    keep_auto: bool = False,
) -> Resolved:
    """Check whether an experiment can be run on these images and with this tracking store, and complete it.

    Without `client` it connects to the store in use, but only after the checks that do not need it, because an embedded
    store is created when it is first used. With `offline`, no store is asked. With `keep_auto`, a precision that is
    left open stays open: a search calls `choose_precision` itself, and its study remembers the choice.

    Raises RequestError if the experiment cannot be run, and WorkError if a model that it names cannot be loaded.
    """
    models.check(config.model)
    signing.check()
    data.check_batch_size(config.training.batch_size)
    client = client or access.connect(offline=offline)
    config = _find_origins(config, data, client)
    _check_transfer(config.model, config.seed, client)
    if config.final:
        _check_transfer(override(config, {**config.final, "final": None}).model, config.seed, client)
    config, choice = (config, None) if keep_auto else choose_precision(config, data)
    return Resolved(config, client, choice)


def choose_precision(
    config: ExperimentConfig, data: FashionMNIST, remembered: Choice | None = None
) -> tuple[ExperimentConfig, Choice | None]:
    """Return the experiment with a fixed precision, and the choice, or None if the experiment names a precision.

    `remembered` is an earlier choice to repeat. A precision that is slow on this machine is used all the same, with a
    warning in the log.
    """
    choice = None
    if config.training.precision in precision.OPEN:
        choice = remembered or precision.choose(config, data)
        training = config.training.model_copy(update={"precision": choice.precision})
        config = config.model_copy(update={"training": training})
    if choice is None and (reason := precision.slowness(config.training.precision)):
        named = config.training.precision
        log.warning("training.precision=%s may take several times as long as float32: %s", named, reason)
    return config, choice


def log_choice(run: Run, choice: Choice | None) -> None:
    """Log the precision that was chosen, if any, with the reason and the speeds that were measured, if they were."""
    if choice is not None:
        run.set_tags({Tag.PRECISION: choice.precision, Tag.PRECISION_REASON: choice.reason})
        run.log_metrics(choice.metrics())


def _find_origins(config: ExperimentConfig, data: FashionMNIST, client: MlflowClient) -> ExperimentConfig:
    """Return the experiment with versions instead of aliases where it, or its search space, names trained models.

    Raises RequestError if there is no such model, or if it may know the images that are held out here.
    """

    def find(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(find, value))
        return lineage.find_trained_on(client, str(value), data).uri if value else value

    model = config.model.model_copy(update={name: find(getattr(config.model, name)) for name in ORIGINS})
    config = config.model_copy(update={"model": model})
    if config.search is None:
        return config
    space = dict(config.search.space)
    for name in ORIGINS:
        if isinstance(field := space.get(f"model.{name}"), searched.Choice):
            space[f"model.{name}"] = searched.Choice(choices=find(field.choices))
    return config.model_copy(update={"search": config.search.model_copy(update={"space": space})})


def _check_transfer(model: ModelConfig, seed: int, client: MlflowClient) -> None:
    """Raise RequestError if the weights of model.warm_start do not fit, or model.frozen leaves no layer to train."""
    if not (model.warm_start or model.frozen):
        return
    seeds.prepare(seed, "float32")
    network = models.build(model)
    transfer.freeze(network, model.frozen)
    if model.warm_start:
        transfer.copy_weights(network, lineage.find(client, model.warm_start).load_keras(), model.warm_start)
