"""The schema of a search: what it varies, and what it may cost."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fmnist_exp.config.section import Section, Width


class Range(Section):
    """Numbers from `low` to `high`; whole ones where the field is whole."""

    low: float
    high: float
    log: bool = False
    step: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _not_empty(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) must be below high ({self.high:g})")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low above 0 and no step")
        steps = (self.high - self.low) / (self.step or 1)
        if self.step is not None and not math.isclose(steps, round(steps), abs_tol=1e-6):
            raise ValueError(f"step ({self.step:g}) must divide the way from low to high")
        return self


class Choice(Section):
    """One of the values listed."""

    choices: tuple[Any, ...] = Field(min_length=2)


class Layers(Section):
    """A list of widths: `depth` layers at least and at most, each `low` to `high` units or filters wide.

    `low` and `high` are one number for all layers or a list with one for each.
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
                raise ValueError(f"low and high list one width for each of {self.depth[1]} layers, not {len(limit)}")
        for low, high in self.limits():
            if low >= high:
                raise ValueError(f"low ({low}) must be below high ({high})")
            if (high - low) % self.step:
                raise ValueError(f"step ({self.step}) must divide the way from {low} to {high}")
        return self

    def limits(self) -> list[tuple[int, int]]:
        """The lowest and the highest width of each layer, for the greatest depth."""
        lows, highs = (
            limit if isinstance(limit, tuple) else (limit,) * self.depth[1] for limit in (self.low, self.high)
        )
        return list(zip(lows, highs, strict=True))


Objective = Literal["val_accuracy", "parameters", "prediction_seconds"]


class SearchConfig(Section):
    """What a search varies, and what it may cost."""

    space: dict[str, Layers | Range | Choice] = Field(
        min_length=1, description="field: {low, high, log | choices | depth}"
    )
    n_trials: int = Field(20, ge=1, le=100_000, description="finished trials, those of earlier sessions included")
    timeout: float = Field(60.0, gt=0, le=100_000, description="minutes after which no trial goes on")
    reduction_factor: int = Field(
        3, ge=2, le=10, description="successive halving keeps one trial in so many at each rung"
    )
    min_epochs: int = Field(1, ge=1, le=1000, description="epochs before the first rung")
    startup_trials: int = Field(5, ge=1, le=1000, description="random trials before the sampler learns from them")
    sampler: Literal["tpe", "random", "gp"] = Field("tpe", description="what chooses a trial's setting")
    pruner: Literal["successive_halving", "none"] = Field(
        "successive_halving", description="what stops weak trials; none with several objectives"
    )
    objectives: tuple[Objective, ...] = Field(
        ("val_accuracy",), description="val_accuracy, then what to keep small: parameters, prediction_seconds"
    )
    warm_start: str | None = Field(None, description="an earlier study of the storage whose best settings come first")
    refit: int = Field(0, ge=0, le=20, description="seeds to fit the winner again with, on all 60,000 images")
    keep: int | None = Field(None, ge=1, le=100_000, description="trials whose weights stay at the end; empty: all")

    @model_validator(mode="after")
    def _objectives_agree(self) -> "SearchConfig":
        if self.objectives[:1] != ("val_accuracy",):
            raise ValueError("search.objectives must begin with val_accuracy, which decides what is registered")
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError("search.objectives names one objective twice")
        if len(self.objectives) > 1 and self.pruner != "none":
            raise ValueError("several search.objectives cannot be pruned; they need search.pruner=none")
        if len(self.objectives) > 1 and self.refit > 1:
            raise ValueError("several search.objectives need search.refit=1 or 0: more seeds make an ensemble, as slow")
        return self
