"""Check what a search asks for. This module does not import Keras, so that a command can refuse a search at once."""

from __future__ import annotations

from fmnist_exp.config.fields import fields
from fmnist_exp.config.files import unknown_field
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.config.search import Choice
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError
from fmnist_exp.tuning.plan import EPOCHS
from fmnist_exp.tuning.space import SearchSpace

# in all fits of a search
SAME = ("model.family", "model.warm_start", "model.members", "training.precision", "training.checkpoint")
OF_ANY_SIZE = ("model.dropout", "model.l2")  # fields of the model that change neither its parameters nor its speed


def check(config: ExperimentConfig) -> None:
    """Raise RequestError if the experiment has no search, or if some setting of it or the winner cannot be fitted."""
    space = SearchSpace(config)
    space.validate()
    _check_refit(space)
    _check_final(space)


def check_data(config: ExperimentConfig, data: FashionMNIST) -> None:
    """Raise RequestError if some setting of the search, or its final fit, cannot be trained on these images."""
    space = SearchSpace(config)
    space.validate_data(data)
    data.check_batch_size(space.longer().config.training.batch_size)


def _check_refit(space: SearchSpace) -> None:
    """Raise RequestError if the winner might need validation images to be fitted again."""
    schedules = space.fields.get("training.schedule")
    possible = schedules.choices if isinstance(schedules, Choice) else [space.config.training.schedule]
    if space.search.refit and "plateau" in possible:
        raise RequestError(
            "search.refit leaves no validation images, which training.schedule=plateau needs; use one_cycle"
        )


def _check_final(space: SearchSpace) -> None:
    """Raise RequestError if `final` contradicts the search, or if some winner could not be fitted with its values."""
    values = space.config.final
    if values is None:
        return
    if space.search.refit:
        raise RequestError("final and search.refit both say which network is registered; leave one of them out")
    for name in values:
        if name not in fields():
            raise unknown_field(name)
        if not name.startswith(("model.", "training.", "augmentation.")) or name in SAME:
            raise RequestError(f"final: {name} must be the same in all fits of a search; set it outside of final")
        if name in space.fields:
            raise RequestError(f"final: {name} is searched, so that the winner decides it; take it out of final")
        if len(space.search.objectives) > 1 and name.startswith("model.") and name not in OF_ANY_SIZE:
            objectives = " and ".join(space.search.objectives[1:])
            raise RequestError(f"final: {name} may change {objectives}, by which the winner is chosen; take it out")
    least, epochs = space.config.training.epochs, values.get(EPOCHS)
    if isinstance(epochs, int) and 0 < epochs < least:
        raise RequestError(
            f"final: {EPOCHS}={epochs} is less than the {least} of a trial; the final fit is to be longer"
        )
    try:
        space.longer().validate()
    except RequestError as error:
        raise RequestError(f"final: {error}") from error
