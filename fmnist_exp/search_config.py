"""The schema of a search: what it varies, and what it may cost."""

import math
from typing import Annotated, Any

from pydantic import Field, model_validator

from fmnist_exp.section import Section, Width


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
    startup_trials: int = Field(5, ge=1, le=1000, description="random trials before TPE")
