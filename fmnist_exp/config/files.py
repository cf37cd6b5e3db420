"""Read an experiment file with overrides into a checked ExperimentConfig; a mistake is reported in one sentence."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fmnist_exp.config.fields import allowed, fields
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.errors import RequestError

PACKAGE = Path(__file__).resolve().parents[1]
# A wheel holds the shipped experiments inside the package; in the repository they lie beside it.
EXPERIMENTS = PACKAGE / "experiments" if (PACKAGE / "experiments").is_dir() else PACKAGE.parent / "experiments"
LONGEST = 100_000  # characters of an experiment file; the shipped ones have 3,000
ALIASES = 100  # in an experiment file
DEPTH = 20  # lists and mappings inside each other, in an experiment file
BEFORE_THE_GATE_SPLIT = {"gate_fraction": 0.0}  # the section `data` of the releases without this field


class _Loader(yaml.SafeLoader):
    """A YAML loader that reads 1:30 as text. YAML 1.1 reads it as the number 90, written in base 60."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        is_text = isinstance(node, yaml.ScalarNode) and ":" in node.value
        return node.value if is_text else super().construct_object(node, deep)


def load(reference: str, overrides: Mapping[str, object] | None = None) -> ExperimentConfig:
    """Read an experiment, given by the path of its YAML file or by the name of a shipped one, and apply overrides.

    Overrides are values by dotted name; text is read as YAML. Raises RequestError if there is no such file, it is not
    YAML, a field is unknown, or a value is out of range.
    """
    path = Path(reference) if reference.endswith((".yaml", ".yml")) else EXPERIMENTS / f"{reference}.yaml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in EXPERIMENTS.glob("*.yaml")))
        others = f"or one of {shipped}" if shipped else "because this installation lacks the shipped experiments"
        raise RequestError(f"no experiment {reference!r}; give the path of a YAML file, {others}")
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(LONGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"experiment {reference!r} cannot be read: {error}; it must be a YAML file") from error
    return parse(text, path.stem, overrides)


def parse(text: str, name: str, overrides: Mapping[str, object] | None = None) -> ExperimentConfig:
    """Read an experiment from YAML text; `name` is used if the text gives none. Raises RequestError."""
    return _validate(_apply({"name": name, **_mapping(text, name)}, overrides or {}))


def parse_logged(text: str, name: str, overrides: Mapping[str, object] | None = None) -> ExperimentConfig:
    """Read an experiment that a run or a study stored, which may be one of an earlier release. Raises RequestError.

    A stored experiment without data.gate_fraction kept no images back for the gate, whatever the default is today.
    """
    raw = _mapping(text, name)
    if isinstance(data := raw.get("data") or {}, dict):
        raw["data"] = {**BEFORE_THE_GATE_SPLIT, **data}
    return _validate(_apply({"name": name, **raw}, overrides or {}))


def _mapping(text: str, name: str) -> dict[str, Any]:
    if len(text) > LONGEST:
        raise RequestError(f"experiment {name!r} is too long: at most {LONGEST:,} characters are read")
    try:
        _check_aliases(text)
        raw = yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # the last: a number of thousands of digits
        raise RequestError(f"experiment {name!r} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise RequestError(f"experiment {name!r} must be a mapping of fields")
    return raw


def _check_aliases(text: str) -> None:
    """Raise YAMLError for aliases inside of what an anchor names, of which a few lines expand to gigabytes."""
    anchored: list[bool] = []  # of each list or mapping that is open
    aliases = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            anchored.append(event.anchor is not None)
        elif isinstance(event, yaml.CollectionEndEvent):
            anchored.pop()
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
            if any(anchored) or aliases > ALIASES:
                raise yaml.YAMLError(f"the alias *{event.anchor} is part of what an anchor names, or one of too many")
        if len(anchored) > DEPTH:
            raise yaml.YAMLError(f"lists and mappings are nested more than {DEPTH} deep")


def override(config: ExperimentConfig, overrides: Mapping[str, object]) -> ExperimentConfig:
    """Return a copy with other values at these dotted names. Raises RequestError for a wrong name or value."""
    return _validate(_apply(config.model_dump(mode="json"), overrides))


def unknown_field(name: str) -> RequestError:
    """Return the error for a name that no field has; it suggests the nearest name that exists."""
    known = list(fields())
    by_leaf = [field for field in known if field.rpartition(".")[2] == name.rpartition(".")[2]]
    near = by_leaf or difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return RequestError(f"unknown field {name!r}; did you mean {near[0]!r}?")


def _apply(raw: dict[str, Any], overrides: Mapping[str, object]) -> dict[str, Any]:
    """Set the value at each dotted name of the nested mapping `raw`, and return `raw`."""
    for name, value in overrides.items():
        if name not in fields():
            raise unknown_field(name)
        *path, leaf = name.split(".")
        section = raw
        for step in path:
            section[step] = section.get(step) or {}
            section = section[step]
        if section is raw.get("search") and "space" not in section and leaf != "space":
            raise RequestError(f"{name} requires an experiment with a search, e.g. tune_cnn")
        section[leaf] = _read(name, value) if isinstance(value, str) else value
    return raw


def _read(name: str, text: str) -> object:
    """Return the value that `text` from the command line gives a field."""
    if fields()[name].annotation in (str, str | None):
        return text or None
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise RequestError(f"{name}={text!r} is not a value that YAML can read") from error


def _validate(raw: object) -> ExperimentConfig:
    try:
        return ExperimentConfig.model_validate(raw)
    except ValidationError as error:
        raise _sentence(error) from error


def _sentence(error: ValidationError) -> RequestError:
    """Return the first mistake that pydantic found as one sentence, with the range or the nearest name."""
    errors = error.errors()
    first = next((e for e in errors if e["type"] == "value_error"), errors[0])
    # pydantic's location ends in positions in lists and branches of unions, which mean nothing to a user
    known = [".".join(map(str, first["loc"][:end])) for end in range(len(first["loc"]), 0, -1)]
    name = next((candidate for candidate in known if candidate in fields()), None)
    if first["type"] == "value_error":
        return RequestError(f"{name}: {first['ctx']['error']}" if name else str(first["ctx"]["error"]))
    if name == "search.space" and first["type"] == "too_short":
        return RequestError("search.space is empty: name at least one field, as experiments/tune_mlp.yaml does")
    if name == "final":
        return RequestError(f"final takes values of fields, e.g. {{training.epochs: 20}}; got {first['input']!r}")
    if name == "search.space":
        forms = "{low, high[, log][, step]}, {choices} or {depth, low, high[, step]}"
        return RequestError(f"search.space: each field takes {forms}; got {first['input']!r}")
    if first["type"] == "extra_forbidden" and name is None:
        return unknown_field(known[0])
    if name is None:
        return RequestError(f"{known[0]}: must be a mapping of fields, got {first['input']!r}")
    given = first["input"]
    if ("tuple_type", given) in [(e["type"], e["input"]) for e in errors]:
        items = [item.strip() for item in str(given if isinstance(given, str | int | float) else "32, 64").split(",")]
        if first["type"] == "tuple_type" or len(items) > 1:
            return RequestError(f"{name}={given!r}: write a list in brackets, e.g. [{', '.join(items)}]")
    wrong_type = first["type"].endswith(("_type", "_parsing", "_from_float"))
    reasons = [first["msg"].lower()] if wrong_type else []
    reasons += [f"must be {allowed(name)}"] if allowed(name) and first["type"] != "too_long" else []
    return RequestError(f"{name}={first['input']!r}: {'; '.join(reasons or [first['msg'].lower()])}")
