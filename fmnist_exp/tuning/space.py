"""The search space: from an experiment's `search:` block to Optuna's parameters and back to overrides.

A list of widths becomes one parameter for the depth and one for each possible layer, suggested whether the depth uses
it or not: with the same parameters in every trial, multivariate TPE can use all of them.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fmnist_exp import models
from fmnist_exp.config.fields import fields, flatten
from fmnist_exp.config.files import override, unknown_field
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.config.search import Choice, Layers, Range, SearchConfig
from fmnist_exp.errors import RequestError
from fmnist_exp.training import fit as fitting

if TYPE_CHECKING:
    from optuna import Trial

    from fmnist_exp.data.dataset import FashionMNIST

Parameters = Mapping[str, Any]  # Optuna's name → value


def search_of(config: ExperimentConfig) -> SearchConfig:
    """The experiment's search. Raises RequestError if it has none."""
    if config.search is None:
        raise RequestError(f"experiment {config.name!r} has no search: block; take tune_cnn or tune_mlp")
    return config.search


def check(config: ExperimentConfig) -> None:
    """Raise RequestError unless every corner of the space is valid and the experiment's own values lie in it."""
    models.check(config.model)
    own = flatten(config)
    for name, space in search_of(config).space.items():
        if name not in fields():
            raise unknown_field(name)
        if not name.startswith(("model.", "training.", "augmentation.")):
            raise RequestError(f"search.space: {name} cannot be searched; only model, training and augmentation fields")
        for value in _corners(space):
            models.check(_override(config, {name: value}).model)
        if name == "training.precision" and "auto" in _corners(space):  # it is settled once in a study, for all trials
            raise RequestError("search.space: training.precision has choices float32 and bfloat16; auto is not one")
        if isinstance(space, Range) and _is_whole(name) and (space.step or 1) % 1:
            raise RequestError(f"search.space: {name} is a whole number, so its step ({space.step:g}) must be one too")
        if not _holds(space, own[name]):
            raise RequestError(f"search.space: the experiment's own {name}={own[name]} is outside its space")
    _check_pairs(config)
    _check_used(config)


def _check_pairs(config: ExperimentConfig) -> None:
    """Raise RequestError if a corner of one field excludes a corner of another one."""
    corners = {name: _corners(space) for name, space in search_of(config).space.items()}
    for one, other in itertools.combinations(corners, 2):
        for values in itertools.product(corners[one], corners[other]):
            try:
                models.check(_override(config, dict(zip((one, other), values, strict=True))).model)
            except RequestError as error:
                raise RequestError(
                    f"search.space: {one}={values[0]} is incompatible with {other}={values[1]}: {error}"
                ) from error


def _check_used(config: ExperimentConfig) -> None:
    """Raise RequestError for a searched field of the model that changes nothing in its family."""
    searched = search_of(config).space
    family = searched.get("model.family")
    families = family.choices if isinstance(family, Choice) else [config.model.family]
    for name in searched:
        section, _, field = name.partition(".")
        if section == "model" and not any(field in models.used_fields(family) for family in families):
            raise RequestError(
                f"search.space: {name} changes nothing in model.family={config.model.family}; take it out"
            )
        needed = models.NEEDS.get(field, "") if section == "model" else ""
        if needed and not (getattr(config.model, needed) or f"model.{needed}" in searched):
            raise RequestError(
                f"search.space: {name} changes nothing without model.{needed}; set it, or take {name} out"
            )


def check_data(config: ExperimentConfig, data: FashionMNIST) -> None:
    """Raise RequestError for a space with settings that this data cannot serve."""
    for name, space in search_of(config).space.items():
        for value in _corners(space) if name.startswith("training.") else []:
            try:
                fitting.check(_override(config, {name: value}).training, data)
            except RequestError as error:
                raise RequestError(f"search.space: {error}") from error


def suggest(trial: Trial, config: ExperimentConfig) -> ExperimentConfig:
    """The experiment of one trial: every field of the space as Optuna suggests it, without the search."""
    overrides: dict[str, Any] = {}
    for name, space in search_of(config).space.items():
        if isinstance(space, Range):
            if _is_whole(name):
                step = int(space.step or 1)
                overrides[name] = trial.suggest_int(name, int(space.low), int(space.high), step=step, log=space.log)
            else:
                overrides[name] = trial.suggest_float(name, space.low, space.high, step=space.step, log=space.log)
        elif isinstance(space, Choice):
            overrides[name] = json.loads(trial.suggest_categorical(name, [json.dumps(c) for c in space.choices]))
        else:
            depth = trial.suggest_int(f"{name}.depth", *space.depth)
            layers = enumerate(space.limits(), start=1)
            widths = [trial.suggest_int(f"{name}.{i}", low, high, step=space.step) for i, (low, high) in layers]
            overrides[name] = widths[:depth]
    return _override(config.model_copy(update={"search": None}), overrides)


def defaults(config: ExperimentConfig) -> dict[str, Any]:
    """The experiment's own values as Optuna's parameters, for the first trial."""
    return parameters(config, flatten(config))


def parameters(config: ExperimentConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the searched fields, by dotted name, as Optuna's parameters."""
    found: dict[str, Any] = {}
    for name, space in search_of(config).space.items():
        if isinstance(space, Layers):
            widths = list(values[name])
            found[f"{name}.depth"] = len(widths)
            widths += [low for low, _ in space.limits()[len(widths) :]]  # not used at this depth
            found |= {f"{name}.{position}": width for position, width in enumerate(widths, start=1)}
        else:
            found[name] = json.dumps(values[name]) if isinstance(space, Choice) else values[name]
    return found


def holds(config: ExperimentConfig, values: Mapping[str, Any]) -> bool:
    """Whether the values of the searched fields, by dotted name, lie in the space."""
    return all(_holds(space, values[name]) for name, space in search_of(config).space.items())


def _override(config: ExperimentConfig, overrides: dict[str, Any]) -> ExperimentConfig:
    """The experiment with these values; lists with one value per layer follow a change of the depth."""
    if isinstance(overrides.get("model.widths"), list | tuple):  # a wrong space may give a number
        depth = len(overrides["model.widths"])
        for name in ("dropout", "convolutions"):
            own = getattr(config.model, name)
            if isinstance(own, tuple) and f"model.{name}" not in overrides:
                overrides = {**overrides, f"model.{name}": [*own, *own[-1:] * depth][:depth]}
    return override(config, overrides)


def _is_whole(name: str) -> bool:
    return fields()[name].annotation in (int, int | None)


def _corners(space: Range | Choice | Layers) -> list[Any]:
    if isinstance(space, Choice):
        return list(space.choices)
    if isinstance(space, Range):
        return [space.low, space.high]
    return [[limit[side] for limit in space.limits()[:depth]] for depth in space.depth for side in (0, 1)]


def _on_step(space: Range, value: float) -> bool:
    steps = (value - space.low) / (space.step or 1)
    return space.step is None or math.isclose(steps, round(steps), abs_tol=1e-6)


def _holds(space: Range | Choice | Layers, value: Any) -> bool:
    if isinstance(space, Choice):
        return json.dumps(value) in [json.dumps(choice) for choice in space.choices]
    if isinstance(space, Range):
        return isinstance(value, int | float) and space.low <= value <= space.high and _on_step(space, value)
    if not isinstance(value, list | tuple):
        return False
    in_depth = space.depth[0] <= len(value) <= space.depth[1]
    layers = zip(value, space.limits(), strict=False)
    return in_depth and all(low <= w <= high and (w - low) % space.step == 0 for w, (low, high) in layers)
