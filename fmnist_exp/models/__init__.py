"""The model families: MODELS maps a name to the function that builds it. Pure Keras 3, stock layers only.

Every model takes uint8 images (batch, 28, 28) and returns probabilities (batch, 10), so whatever it needs of scaling
travels with it. Keras is imported inside the builders: a wrong argument must not wait for it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING

from fmnist_exp.config.schema import ModelConfig
from fmnist_exp.errors import RequestError
from fmnist_exp.models.convolutional import check_maps, cnn, mobilenet, resnet
from fmnist_exp.models.dense import linear, mlp, naive

if TYPE_CHECKING:
    import keras

Builder = Callable[[ModelConfig], "keras.Model"]

MODELS: dict[str, Builder] = {
    "naive": naive,
    "linear": linear,
    "mlp": mlp,
    "cnn": cnn,
    "resnet": resnet,
    "mobilenet": mobilenet,
}


def check(config: ModelConfig) -> None:
    """Raise RequestError for a family that is not in the registry, or one that cannot be built."""
    if config.family not in MODELS:
        near = difflib.get_close_matches(config.family, MODELS, n=1, cutoff=0.0)[0]
        raise RequestError(
            f"model.family={config.family!r}: must be one of {', '.join(MODELS)}; did you mean {near!r}?"
        )
    if config.family in ("resnet", "mobilenet") and not config.widths:
        raise RequestError(f"model.widths=[]: {config.family} needs a width at least")
    if config.family == "cnn":
        check_maps(config)


def build(config: ModelConfig) -> keras.Model:
    """Build the model that `config` describes, with fresh weights.

    Returns:
        Takes uint8 images (batch, 28, 28), returns float32 probabilities (batch, 10).

    Raises:
        RequestError: the family is not in the registry.
    """
    check(config)
    return MODELS[config.family](config)


def same_network(one: ModelConfig, other: ModelConfig) -> bool:
    """Whether both build the same layers with the same settings."""

    def layers(config: ModelConfig) -> list[tuple[str, str]]:
        settings = [(type(layer).__name__, layer.get_config()) for layer in build(config).layers]
        return [(kind, str({**own, "name": ""})) for kind, own in settings]

    return layers(one) == layers(other)


def describe(model: keras.Model) -> list[tuple[str, str, int]]:
    """Each layer as (description, output shape, parameters), the input first."""
    rows = [("Input", "28 × 28 uint8", 0)]
    for layer in model.layers:
        details = [str(getattr(layer, name)) for name in ("filters", "units", "rate") if hasattr(layer, name)]
        if hasattr(layer, "kernel_size"):
            details.append("×".join(map(str, layer.kernel_size)))
        if getattr(getattr(layer, "activation", None), "__name__", "linear") != "linear":
            details.append(layer.activation.__name__)
        shape = " × ".join(map(str, layer.output.shape[1:]))
        rows.append((" ".join([type(layer).__name__, *details]), shape, layer.count_params()))
    return rows
