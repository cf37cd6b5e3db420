"""Settings as numbers: each parameter of a search as columns from 0 to 1, and back.

The width of a layer that a setting does not have, because its network is shallower, is always 0. Settings that differ
in nothing else are the same network.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

Array = NDArray[np.float64]
Numeric = FloatDistribution | IntDistribution


def row(params: Mapping[str, CategoricalChoiceType], search_space: Mapping[str, BaseDistribution]) -> list[float]:
    """Return a setting as columns: 0…1 for each numeric parameter, and 0 or 1 for each possible choice."""
    row: list[float] = []
    for name, kind in search_space.items():
        if isinstance(kind, CategoricalDistribution):
            row += [float(params[name] == choice) for choice in kind.choices]
        else:
            depth, layer = _layer(name)
            layers = params.get(depth)
            unused = isinstance(layers, int) and layer > layers
            row.append(0.0 if unused else to_unit(params[name], kind))
    return row


def rows(units: Array, search_space: Mapping[str, BaseDistribution]) -> Array:
    """Return the columns of many settings, (settings, columns), as `row` does.

    Args:
        units: the position of each parameter's value in the unit interval, (settings, parameters).
        search_space: the parameters.
    """
    columns = []
    positions_of = dict(zip(search_space, units.T, strict=True))
    for name, kind in search_space.items():
        positions = positions_of[name]
        if isinstance(kind, CategoricalDistribution):
            columns.append(np.eye(len(kind.choices))[(positions * len(kind.choices)).astype(int)])
        else:
            assert isinstance(kind, Numeric)
            column = _positions(_values(positions, kind), kind)
            depth, layer = _layer(name)
            if isinstance(depths := search_space.get(depth), IntDistribution):
                column = np.where(layer <= _values(positions_of[depth], depths), column, 0.0)
            columns.append(column[:, None])
    return np.concatenate(columns, axis=1)


def to_unit(value: CategoricalChoiceType, kind: BaseDistribution) -> float:
    """Return the position of a value in the unit interval."""
    if isinstance(kind, CategoricalDistribution):
        return (kind.choices.index(value) + 0.5) / len(kind.choices)
    assert isinstance(kind, Numeric)
    assert isinstance(value, int | float)
    return float(_positions(np.array(value, dtype=float), kind))


def from_unit(unit: float, kind: BaseDistribution) -> CategoricalChoiceType:
    """Return the value at a position in the unit interval."""
    if isinstance(kind, CategoricalDistribution):
        return kind.choices[int(unit * len(kind.choices))]
    assert isinstance(kind, Numeric)
    value = float(_values(np.array(unit), kind))
    return round(value) if isinstance(kind, IntDistribution) else value


def _layer(name: str) -> tuple[str, int]:
    """Return the parameter that has the depth of a list of widths, and the layer of which `name` is the width.

    The layer is 0 if the parameter is no width. `SearchSpace.suggest` makes the names.
    """
    stem, _, last = name.rpartition(".")
    return f"{stem}.depth", int(last) if last.isdigit() else 0


def _limits(kind: Numeric) -> tuple[float, float]:
    """Return the parameter's values at 0 and 1 of the unit interval, in which each step gets an equal part."""
    half = (kind.step or 0) / 2 if not kind.log else 0.5 if isinstance(kind, IntDistribution) else 0
    low, high = kind.low - half, kind.high + half
    return (float(np.log(low)), float(np.log(high))) if kind.log else (low, high)


def _positions(values: Array, kind: Numeric) -> Array:
    low, high = _limits(kind)
    return ((np.log(values) if kind.log else values) - low) / (high - low)


def _values(positions: Array, kind: Numeric) -> Array:
    low, high = _limits(kind)
    values = low + positions * (high - low)
    values = np.exp(values) if kind.log else values
    if kind.step and not kind.log:
        values = kind.low + np.round((values - kind.low) / kind.step) * kind.step
    values = np.clip(values, kind.low, kind.high)
    return np.round(values) if isinstance(kind, IntDistribution) else values
