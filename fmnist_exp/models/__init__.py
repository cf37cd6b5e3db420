"""The model families: each builds a keras.Model of stock layers from a ModelConfig.

Every network takes uint8 images (B, 28, 28) and returns float32 probabilities (B, 10), so the scaling of the pixels is
part of it. A new family is one builder and one entry of FAMILIES. Fitting, saving and scoring do not belong here.

This package does not import Keras: a builder's module is imported when the first network of its family is built.
"""

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fmnist_exp.config.schema import ModelConfig
from fmnist_exp.errors import RequestError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Family:
    """A kind of network."""

    build: str  # the builder as `module:function`, a module of this package; it takes a ModelConfig, returns a model
    fields: frozenset[str] = frozenset()  # the fields of ModelConfig that change the layers
    # raises RequestError for a configuration that cannot be built; it must not import Keras
    check: Callable[[ModelConfig], None] = lambda config: None


def _has_a_width(config: ModelConfig) -> None:
    """Raise RequestError if `widths` is empty: the stem takes its filters from the first one."""
    if not config.widths:
        raise RequestError(f"model.widths=[]: {config.family} needs at least one width")


def _maps_keep_pixels(config: ModelConfig) -> None:
    """Raise RequestError if `valid` padding leaves no pixel of the maps."""
    side = 28
    for block, convolutions in enumerate(config.convolutions_per_block()):
        for position in range(convolutions if config.padding == "valid" else 0):
            stride = config.stem_stride if block == position == 0 else 1
            side = (side - config.kernel_size) // stride + 1
            if side < 1:
                raise RequestError(
                    f"model.padding=valid: no pixel of the maps is left in block {block + 1} of {len(config.widths)};"
                    " use fewer model.widths, or model.padding=same"
                )
            side = side // 2 if config.pool_first and position == 0 and side > 1 else side
        side = side // 2 if not config.pool_first and side > 1 else side


COMMON = frozenset({"family", "averaging", "members", "warm_start", "frozen"})  # they have an effect in every family
# a field → the one without which it has no effect
NEEDS = {"norm_position": "batch_norm", "norm_first_only": "batch_norm", "head_batch_norm": "batch_norm"}

_DENSE = frozenset({"widths", "dropout", "l2", "batch_norm", "norm_position", "activation"})
_HEAD = frozenset({"pooling", "head_widths", "head_batch_norm", "head_dropout"})
_CONVOLUTIONAL = _DENSE | _HEAD | {"convolutions", "kernel_size", "stem_stride"}
_CNN = _CONVOLUTIONAL | {"norm_first_only", "residual", "pool_first", "padding"}

FAMILIES: dict[str, Family] = {
    "naive": Family("dense:naive"),
    "linear": Family("dense:linear", frozenset({"l2"})),
    "mlp": Family("dense:mlp", _DENSE),
    "cnn": Family("convolutional:cnn", _CNN, _maps_keep_pixels),
    "resnet": Family("convolutional:resnet", _CONVOLUTIONAL, _has_a_width),
    "mobilenet": Family("convolutional:mobilenet", _CONVOLUTIONAL | {"residual"}, _has_a_width),
}


def check(config: ModelConfig) -> None:
    """Raise RequestError if the family does not exist or cannot build this configuration."""
    if config.family not in FAMILIES:
        near = difflib.get_close_matches(config.family, FAMILIES, n=1, cutoff=0.0)[0]
        raise RequestError(
            f"model.family={config.family!r}: must be one of {', '.join(FAMILIES)}; did you mean {near!r}?"
        )
    FAMILIES[config.family].check(config)


def used_fields(family: str) -> frozenset[str]:
    """Return the fields of ModelConfig that have an effect in a family, without the prefix `model.`."""
    return FAMILIES[family].fields | COMMON


def build(config: ModelConfig) -> "keras.Model":
    """Build the network that `config` describes, with fresh weights. Raises RequestError like `check`."""
    check(config)
    module, _, function = FAMILIES[config.family].build.partition(":")
    builder: Callable[[ModelConfig], keras.Model] = getattr(importlib.import_module(f"{__name__}.{module}"), function)
    return builder(config)


def describe(model: "keras.Model") -> list[tuple[str, str, int]]:
    """Return (description, output shape, number of parameters) of each layer, starting with the input."""
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
