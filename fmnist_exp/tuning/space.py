"""The search space: from an experiment's `search:` block to Optuna's parameters, and back to experiments.

A list of widths becomes one parameter for the depth and one for each possible layer. A layer's width is suggested even
if the depth leaves it unused, because multivariate TPE models only parameters that all trials have.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from typing import Any

from optuna.trial import BaseTrial, FixedTrial

from fmnist_exp import models
from fmnist_exp.config.fields import fields, flatten
from fmnist_exp.config.files import override, unknown_field
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.config.search import Choice, Layers, Range
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError

Values = Mapping[str, Any]  # of fields, by dotted name


class SearchSpace:
    """The fields that a search varies, and the values that each may take.

    Args:
        config: the experiment.

    Raises:
        RequestError: the experiment has no search.
    """

    def __init__(self, config: ExperimentConfig) -> None:
        if config.search is None:
            raise RequestError(f"experiment {config.name!r} has no search: block; take tune_cnn or tune_mlp")
        self.config = config
        self.search = config.search
        self.fields = config.search.space

    def suggest(self, trial: BaseTrial) -> ExperimentConfig:
        """Return the experiment of a trial: each field has the value that Optuna suggests, and there is no search."""
        overrides: dict[str, object] = {}
        for name, field in self.fields.items():
            if isinstance(field, Range):
                if _is_whole(name):
                    step = int(field.step or 1)
                    overrides[name] = trial.suggest_int(name, int(field.low), int(field.high), step=step, log=field.log)
                else:
                    overrides[name] = trial.suggest_float(name, field.low, field.high, step=field.step, log=field.log)
            elif isinstance(field, Choice):
                overrides[name] = json.loads(trial.suggest_categorical(name, [json.dumps(c) for c in field.choices]))
            else:
                depth = trial.suggest_int(f"{name}.depth", *field.depth)
                layers = enumerate(field.limits(), start=1)
                widths = [trial.suggest_int(f"{name}.{i}", low, high, step=field.step) for i, (low, high) in layers]
                overrides[name] = widths[:depth]
        return _override(self.config.without_search(), overrides)

    def apply(self, parameters: Values) -> ExperimentConfig:
        """Return the experiment of a trial that has these parameters of Optuna."""
        return self.suggest(FixedTrial(dict(parameters)))

    def longer(self) -> SearchSpace:
        """Return the search with the values of the experiment's `final` in place of its own."""
        return SearchSpace(override(self.config, {**(self.config.final or {}), "final": None}))

    def settings(self, experiment: ExperimentConfig) -> dict[str, object]:
        """Return the values of the searched fields in an experiment, by dotted name."""
        values = flatten(experiment)
        return {name: values[name] for name in self.fields}

    def defaults(self) -> dict[str, Any]:
        """Return the experiment's own values as Optuna's parameters, for the first trial."""
        return self.parameters(flatten(self.config))

    def parameters(self, values: Values) -> dict[str, Any]:
        """Return values of the searched fields, by dotted name, as Optuna's parameters."""
        parameters: dict[str, Any] = {}
        for name, field in self.fields.items():
            if isinstance(field, Layers):
                widths = list(values[name])
                parameters[f"{name}.depth"] = len(widths)
                widths += [low for low, _ in field.limits()[len(widths) :]]  # not used at this depth
                parameters |= {f"{name}.{position}": width for position, width in enumerate(widths, start=1)}
            else:
                parameters[name] = json.dumps(values[name]) if isinstance(field, Choice) else values[name]
        return parameters

    def contains(self, values: Values) -> bool:
        """Return True if the values of the searched fields, by dotted name, lie in the space."""
        return all(_contains(field, values[name]) for name, field in self.fields.items())

    def validate(self) -> None:
        """Raise RequestError unless every corner of the space is valid and the experiment's own values lie in it."""
        models.check(self.config.model)
        own = flatten(self.config)
        for name, field in self.fields.items():
            if name not in fields():
                raise unknown_field(name)
            if not name.startswith(("model.", "training.", "augmentation.")):
                raise RequestError(
                    f"search.space: {name} cannot be searched; only model, training and augmentation fields"
                )
            for value in _corners(field):
                models.check(_override(self.config, {name: value}).model)
            if name == "training.precision" and {own[name], *map(str, _corners(field))} & {"auto", "measure"}:
                raise RequestError(
                    "search.space: training.precision has the choices float32 and bfloat16, and the experiment must"
                    " name one of them, because auto and measure choose once per study"
                )
            if isinstance(field, Range) and _is_whole(name) and (field.step or 1) % 1:
                raise RequestError(
                    f"search.space: {name} is a whole number, so its step ({field.step:g}) must be one too"
                )
            if not _contains(field, own[name]):
                raise RequestError(f"search.space: the experiment's own {name}={own[name]} is outside its space")
        self._validate_pairs()
        self._validate_use()

    def validate_data(self, data: FashionMNIST) -> None:
        """Raise RequestError if some setting of the space cannot be trained on these images."""
        for name, field in self.fields.items():
            for value in _corners(field) if name.startswith("training.") else []:
                try:
                    data.check_batch_size(_override(self.config, {name: value}).training.batch_size)
                except RequestError as error:
                    raise RequestError(f"search.space: {error}") from error

    def _validate_pairs(self) -> None:
        """Raise RequestError if an end of one field's range cannot be combined with an end of another field's range."""
        corners = {name: _corners(field) for name, field in self.fields.items()}
        for one, other in itertools.combinations(corners, 2):
            for values in itertools.product(corners[one], corners[other]):
                try:
                    models.check(_override(self.config, dict(zip((one, other), values, strict=True))).model)
                except RequestError as error:
                    raise RequestError(
                        f"search.space: {one}={values[0]} is incompatible with {other}={values[1]}: {error}"
                    ) from error

    def _validate_use(self) -> None:
        """Raise RequestError if a searched field of the model has no effect in the model's family."""
        family = self.fields.get("model.family")
        families = family.choices if isinstance(family, Choice) else [self.config.model.family]
        for name in self.fields:
            section, _, field = name.partition(".")
            if section == "model" and not any(field in models.used_fields(family) for family in families):
                raise RequestError(
                    f"search.space: {name} changes nothing in model.family={self.config.model.family}; take it out"
                )
            needed = models.NEEDS.get(field, "") if section == "model" else ""
            if needed and not (getattr(self.config.model, needed) or f"model.{needed}" in self.fields):
                raise RequestError(
                    f"search.space: {name} changes nothing without model.{needed}; set it, or take {name} out"
                )


def _override(config: ExperimentConfig, overrides: Mapping[str, object]) -> ExperimentConfig:
    """Return the experiment with these values; lists with one value per layer are fitted to a new depth."""
    widths = overrides.get("model.widths")
    if isinstance(widths, list | tuple):  # a wrong space may give a number
        depth = len(widths)
        for name in ("dropout", "convolutions"):
            own = getattr(config.model, name)
            if isinstance(own, tuple) and f"model.{name}" not in overrides:
                overrides = {**overrides, f"model.{name}": [*own, *own[-1:] * depth][:depth]}
    return override(config, overrides)


def _is_whole(name: str) -> bool:
    return fields()[name].annotation in (int, int | None)


def _corners(field: Range | Choice | Layers) -> list[object]:
    if isinstance(field, Choice):
        return list(field.choices)
    if isinstance(field, Range):
        return [field.low, field.high]
    return [[limit[side] for limit in field.limits()[:depth]] for depth in field.depth for side in (0, 1)]


def _on_step(field: Range, value: float) -> bool:
    steps = (value - field.low) / (field.step or 1)
    return field.step is None or math.isclose(steps, round(steps), abs_tol=1e-6)


def _contains(field: Range | Choice | Layers, value: object) -> bool:
    if isinstance(field, Choice):
        return json.dumps(value) in [json.dumps(choice) for choice in field.choices]
    if isinstance(field, Range):
        return isinstance(value, int | float) and field.low <= value <= field.high and _on_step(field, value)
    if not isinstance(value, list | tuple):
        return False
    in_depth = field.depth[0] <= len(value) <= field.depth[1]
    layers = zip(value, field.limits(), strict=False)
    return in_depth and all(low <= w <= high and (w - low) % field.step == 0 for w, (low, high) in layers)
