"""Choose the precision that `training.precision` leaves open: `auto` asks the hardware, `measure` times a few steps."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from fmnist_exp import models
from fmnist_exp.backend import hardware
from fmnist_exp.config.schema import ExperimentConfig, ModelConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.training import speed

OPEN = ("auto", "measure")  # values of training.precision that a choice replaces


@dataclass(frozen=True)
class Choice:
    """The precision that was chosen.

    Attributes:
        precision: float32 or bfloat16.
        reason: why, in words.
        images_per_second: measured speeds by precision; empty if nothing was measured.
        seconds: duration of the measurement; None if nothing was measured now.
    """

    precision: str
    reason: str
    images_per_second: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None

    def metrics(self) -> dict[str, float]:
        """Return the metrics that a run logs."""
        speeds = {f"{name}_images_per_second": speed for name, speed in self.images_per_second.items()}
        return speeds if self.seconds is None else {**speeds, "precision_seconds": self.seconds}


def choose(config: ExperimentConfig, data: FashionMNIST) -> Choice:
    """Return the precision for an experiment whose `training.precision` is auto or measure.

    A measurement changes the precision of the process: call `seeds.prepare` before you build the network.
    """
    if config.training.precision == "measure" and _can_profit(config.model):
        return _measured(config, data)
    return by_hardware(config.model)


def by_hardware(model: ModelConfig) -> Choice:
    """Return bfloat16 if it is fast in this process and the network has batch normalization, otherwise float32."""
    if not _can_profit(model):
        return Choice("float32", "there is no hidden layer to train")
    if not model.batch_norm:
        return Choice("float32", "without batch normalization, bfloat16 may cost accuracy")
    found = hardware.bfloat16()
    return Choice("bfloat16" if found.is_fast else "float32", found.reason)


def slowness(precision: str) -> str:
    """Return the reason why this process computes slowly in a precision; empty if it does not."""
    if precision == "float32":
        return ""
    found = hardware.bfloat16()
    return "" if found.is_fast else found.reason


def _can_profit(model: ModelConfig) -> bool:
    """Return whether any layer computes in the precision: the softmax layer does not, and an ensemble is not fitted."""
    return "widths" in models.used_fields(model.family) and not model.members


def _measured(config: ExperimentConfig, data: FashionMNIST) -> Choice:
    start = time.perf_counter()
    speeds, seconds = speed.recall(config), None
    if speeds is None:
        speeds = speed.measure(config, data)
        speed.remember(config, speeds)
        seconds = time.perf_counter() - start
    fastest = max(speeds, key=speeds.__getitem__)
    found = " and ".join(f"{count:,.0f} images per second in {name}" for name, count in speeds.items())
    return Choice(fastest, f"measured {found}", speeds, seconds)
