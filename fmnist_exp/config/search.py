"""The base of all sections, and the schema of `search:`: the space of settings to explore, algorithms and limits."""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Width = Annotated[int, Field(ge=1, le=4096)]  # units of a dense layer or filters of a convolution


class Section(BaseModel):
    """Base class of every section. It is frozen and refuses unknown names; a field's docstring is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Range(Section):
    """A range of numbers from `low` to `high`. The numbers are whole if the field takes whole numbers."""

    low: float
    high: float
    log: bool = False
    step: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _not_empty(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log requires low above 0 and no step")
        steps = (self.high - self.low) / (self.step or 1)
        if self.step is not None and not math.isclose(steps, round(steps), abs_tol=1e-6):
            raise ValueError(f"step ({self.step:g}) must divide the distance from low to high")
        return self


class Choice(Section):
    """A choice among the listed values."""

    choices: tuple[Any, ...] = Field(min_length=2)


class Layers(Section):
    """A list of widths: `depth` gives the smallest and the largest number of layers, `low` and `high` their widths.

    `low` and `high` are one number of units or filters for all layers, or a list with one number for each.
    """

    depth: tuple[Annotated[int, Field(ge=1, le=8)], Annotated[int, Field(ge=1, le=8)]]
    low: Width | tuple[Width, ...]
    high: Width | tuple[Width, ...]
    step: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _not_empty(self) -> "Layers":
        if self.depth[0] > self.depth[1]:
            raise ValueError(f"the first depth ({self.depth[0]}) must not be above the second ({self.depth[1]})")
        for limit in (self.low, self.high):
            if isinstance(limit, tuple) and len(limit) != self.depth[1]:
                raise ValueError(f"low and high must list {self.depth[1]} widths, one for each layer, not {len(limit)}")
        for low, high in self.limits():
            if low >= high:
                raise ValueError(f"low ({low}) must be below high ({high})")
            if (high - low) % self.step:
                raise ValueError(f"step ({self.step}) must divide the distance from {low} to {high}")
        return self

    def limits(self) -> list[tuple[int, int]]:
        """Return the lowest and the highest width of each layer at the largest depth."""
        wide = [limit if isinstance(limit, tuple) else (limit,) * self.depth[1] for limit in (self.low, self.high)]
        return list(zip(*wide, strict=True))


def _by_dotted_name(values: object) -> object:
    """Return the values of a section that may be written like the other sections, or by dotted name."""
    if not isinstance(values, dict):
        return values
    flat: dict[object, object] = {}
    for name, value in values.items():
        flat |= {f"{name}.{leaf}": own for leaf, own in value.items()} if isinstance(value, dict) else {name: value}
    return flat


FinalValues = Annotated[dict[str, Any], BeforeValidator(_by_dotted_name), Field(min_length=1)]
ObjectiveName = Literal["val_accuracy", "parameters", "prediction_seconds"]


class SearchConfig(Section):
    """The space of a search, its algorithms and its limits."""

    space: dict[str, Layers | Range | Choice] = Field(min_length=1)
    """Range of each searched field: {low, high[, log][, step]}, {choices}, or {depth, low, high[, step]} for widths."""
    n_trials: int = Field(20, ge=1, le=100_000)
    """Number of finished trials after which the search ends; trials of earlier sessions count."""
    timeout: float = Field(60.0, gt=0, le=100_000)
    """Time after which the search ends and running trials are stopped, in minutes. The final fit is to end within it,
    and is stopped after the epoch in which a tenth more is over. If the first steps show that the time is too short for
    a single trial, the search fails at once and names a time that suffices."""
    reduction_factor: int = Field(3, ge=2, le=10)
    """Factor of successive halving: at each rung, one of this many trials goes on, and the next rung lies at this many
    times the epochs."""
    min_epochs: int = Field(1, ge=1, le=1000)
    """Number of epochs before the first rung of successive halving, which ranks trials before one_cycle has annealed
    their learning rate."""
    startup_trials: int = Field(10, ge=1, le=1000)
    """Number of random trials before the sampler learns from their results."""
    sampler: Literal["gp", "tpe", "random"] = "gp"
    """Algorithm that chooses the setting of each trial; gp is a Gaussian process over the setting and the epoch."""
    pruner: Literal["successive_halving", "none"] = "successive_halving"
    """Rule by which weak trials pause, and go on if they come to deserve it, by the metric val_accuracy of their
    epochs; several objectives require none."""
    objectives: tuple[ObjectiveName, ...] = ("val_accuracy",)
    """Metrics to optimise: val_accuracy, and after it parameters or prediction_seconds, which are minimised. Here
    val_accuracy is the validation accuracy of the network that a trial logs, in float32 and with model.averaging: the
    metric best_val_accuracy of its run."""
    warm_start: str | None = None
    """Name of an earlier study in the same storage whose best settings are tried first."""
    refit: int = Field(0, ge=0, le=20)
    """Number of seeds with which the best setting is trained again on all 60,000 images; 0 registers the best trial."""
    keep: int | None = Field(None, ge=1, le=100_000)
    """Number of the best trials whose weights are kept when the search ends. If empty, all are kept."""

    @model_validator(mode="after")
    def _objectives_agree(self) -> "SearchConfig":
        if self.objectives[:1] != ("val_accuracy",):
            raise ValueError("search.objectives must begin with val_accuracy, which decides what is registered")
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError("search.objectives names one objective twice")
        if len(self.objectives) > 1 and self.pruner != "none":
            raise ValueError("search.objectives with several metrics requires search.pruner=none")
        if len(self.objectives) > 1 and self.refit > 1:
            reason = "more seeds make a slow ensemble"
            raise ValueError(f"search.objectives with several metrics requires search.refit=0 or 1: {reason}")
        return self
