"""Settings as numbers: each parameter of a search as columns from 0 to 1, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)


def row(params: Mapping[str, CategoricalChoiceType], search_space: Mapping[str, BaseDistribution]) -> list[float]:
    """Return a setting as columns: 0…1 for each numeric parameter, and 0 or 1 for each possible choice."""
    row: list[float] = []
    for name, kind in search_space.items():
        if isinstance(kind, CategoricalDistribution):
            row += [float(params[name] == choice) for choice in kind.choices]
        else:
            row.append(to_unit(params[name], kind))
    return row


def _limits(kind: FloatDistribution | IntDistribution) -> tuple[float, float]:
    """Return the parameter's values at 0 and 1 of the unit interval, in which each step gets an equal part."""
    half = (kind.step or 0) / 2 if not kind.log else 0.5 if isinstance(kind, IntDistribution) else 0
    low, high = kind.low - half, kind.high + half
    return (float(np.log(low)), float(np.log(high))) if kind.log else (low, high)


def to_unit(value: CategoricalChoiceType, kind: BaseDistribution) -> float:
    """Return the position of a value in the unit interval."""
    if isinstance(kind, CategoricalDistribution):
        return (kind.choices.index(value) + 0.5) / len(kind.choices)
    assert isinstance(kind, FloatDistribution | IntDistribution)
    assert isinstance(value, int | float)
    low, high = _limits(kind)
    return ((float(np.log(value)) if kind.log else float(value)) - low) / (high - low)


def from_unit(unit: float, kind: BaseDistribution) -> CategoricalChoiceType:
    """Return the value at a position in the unit interval."""
    if isinstance(kind, CategoricalDistribution):
        return kind.choices[int(unit * len(kind.choices))]
    assert isinstance(kind, FloatDistribution | IntDistribution)
    low, high = _limits(kind)
    value = low + unit * (high - low)
    value = float(np.exp(value)) if kind.log else value
    if kind.step and not kind.log:
        value = kind.low + round((value - kind.low) / kind.step) * kind.step
    value = min(max(value, kind.low), kind.high)
    return round(value) if isinstance(kind, IntDistribution) else value
