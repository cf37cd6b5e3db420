"""From an experiment file and dotted overrides to a checked ExperimentConfig; each mistake becomes one sentence."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import ValidationError

from fmnist_exp.config.schema import ExperimentConfig, fields
from fmnist_exp.errors import RequestError

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"


class _Loader(yaml.SafeLoader):
    """YAML 1.1 without its numbers to the base 60: who writes 1:30 does not mean 90."""

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        if ":" in node.value:
            return node.value
        whole = node.tag.endswith("int")
        return self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)


def load(reference: str, overrides: Mapping[str, Any] | None = None) -> ExperimentConfig:
    """Read an experiment by path, or by its name in experiments/, with dotted overrides on top.

    Raises:
        RequestError: no such file, not YAML, an unknown field or a value out of range.
    """
    path = Path(reference) if reference.endswith((".yaml", ".yml")) else EXPERIMENTS / f"{reference}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in EXPERIMENTS.glob("*.yaml")))
        raise RequestError(f"no experiment {reference!r}; experiments/ has: {known}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"experiment {reference!r} cannot be read: {error}") from error
    return parse(text, path.stem, overrides)


def parse(text: str, name: str, overrides: Mapping[str, Any] | None = None) -> ExperimentConfig:
    """Read an experiment from YAML text; `name` serves where the text has none. Raises RequestError."""
    try:
        raw = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise RequestError(f"experiment {name!r} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise RequestError(f"experiment {name!r} must be a mapping of fields")
    return _validate(_put({"name": name, **raw}, overrides or {}))


def override(config: ExperimentConfig, overrides: Mapping[str, Any]) -> ExperimentConfig:
    """A copy with other values at these dotted names. Raises RequestError for a wrong name or value."""
    return _validate(_put(config.model_dump(mode="json"), overrides))


def unknown_field(name: str) -> RequestError:
    """The error for a name that no field has, with the nearest one that exists."""
    known = list(fields())
    by_leaf = [field for field in known if field.rpartition(".")[2] == name.rpartition(".")[2]]
    near = by_leaf or difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return RequestError(f"unknown field {name!r}; did you mean {near[0]!r}?")


def allowed(name: str) -> str:
    """The range or the values that a field takes, in words; empty where any value of its type will do."""
    field = fields()[name]
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(map(str, get_args(field.annotation)))
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    parts = field.annotation, *get_args(field.annotation)  # a list's limits sit on the type of its items
    metadata = [*field.metadata, *(m for part in parts for m in getattr(part, "__metadata__", ()))]
    limits = [limit for m in metadata for limit in getattr(m, "metadata", [m])]
    return " and ".join(f"{word} {getattr(m, key)}" for m in limits for key, word in words.items() if hasattr(m, key))


def _put(raw: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Set each dotted name in the nested mapping; text from the command line is read as YAML."""
    for name, value in overrides.items():
        if name not in fields():
            raise unknown_field(name)
        *path, leaf = name.split(".")
        section = raw
        for step in path:
            section[step] = section.get(step) or {}
            section = section[step]
        if section is raw.get("search") and "space" not in section and leaf != "space":
            raise RequestError(f"{name} needs an experiment with a search, as tune_cnn")
        section[leaf] = _read(name, value) if isinstance(value, str) else value
    return raw


def _read(name: str, text: str) -> Any:
    if fields()[name].annotation in (str, str | None):
        return text or None
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise RequestError(f"{name}={text!r} is not a value that YAML can read") from error


def _validate(raw: dict[str, Any]) -> ExperimentConfig:
    try:
        return ExperimentConfig.model_validate(raw)
    except ValidationError as error:
        raise _sentence(error) from error


def _sentence(error: ValidationError) -> RequestError:
    """The first thing that pydantic found wrong, in one line, with the range or the nearest name."""
    errors = error.errors()
    first = next((e for e in errors if e["type"] == "value_error"), errors[0])
    # the position inside a list and the branch of a union say nothing to a user
    known = [".".join(map(str, first["loc"][:end])) for end in range(len(first["loc"]), 0, -1)]
    name = next((candidate for candidate in known if candidate in fields()), None)
    if first["type"] == "value_error":
        return RequestError(f"{name}: {first['ctx']['error']}" if name else str(first["ctx"]["error"]))
    if name == "search.space" and first["type"] == "too_short":
        return RequestError("search.space is empty: name a field to search at least, as in experiments/tune_mlp.yaml")
    if name == "search.space":
        forms = "{low, high[, log][, step]}, {choices} or {depth, low, high[, step]}"
        return RequestError(f"search.space: each field takes {forms}; got {first['input']!r}")
    if first["type"] == "extra_forbidden" and name is None:
        return unknown_field(known[0])
    if name is None:
        return RequestError(f"{known[0]}: must be a mapping of fields, got {first['input']!r}")
    wrong_type = first["type"].endswith(("_type", "_parsing", "_from_float"))
    reasons = [first["msg"].lower()] if wrong_type else []
    reasons += [f"must be {allowed(name)}"] if allowed(name) and first["type"] != "too_long" else []
    return RequestError(f"{name}={first['input']!r}: {'; '.join(reasons or [first['msg'].lower()])}")
