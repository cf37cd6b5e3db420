"""The fields of an experiment by dotted name, such as `training.epochs`: their values, ranges and descriptions."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.config.search import SearchConfig


@dataclass(frozen=True)
class FieldHelp:
    """The text about a field in `--help` and docs/interface.md."""

    name: str  # dotted
    description: str
    allowed: str  # the range or the possible values in words; empty if every value of the type is possible
    value: object  # in this experiment; for a field of a search that it does not have, the default

    @property
    def section(self) -> str:
        """The part of the name before the dot; empty for the name and the seed of the experiment."""
        return self.name.rpartition(".")[0]


def describe(config: ExperimentConfig) -> list[FieldHelp]:
    """Return the help of every field in the schema's order, with its value in this experiment."""
    values = flatten(config)
    texts = {name: " ".join((field.description or "").split()) for name, field in fields().items()}
    return [
        FieldHelp(name, texts[name], allowed(name), values.get(name, field.get_default()))
        for name, field in fields().items()
    ]


@cache
def fields() -> dict[str, FieldInfo]:
    """Return pydantic's information about every field by dotted name, in the schema's order."""

    def walk(schema: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
        for name, field in schema.model_fields.items():
            section = SearchConfig if name == "search" else field.annotation
            if isinstance(section, type) and issubclass(section, BaseModel):
                yield from walk(section, f"{prefix}{name}.")
            else:
                yield prefix + name, field

    return dict(walk(ExperimentConfig, ""))


def flatten(config: ExperimentConfig) -> dict[str, Any]:
    """Return the value of every field by dotted name, in the schema's order; without a search, no `search.` names."""
    names = (name for name in fields() if config.search or not name.startswith("search."))
    return {name: attrgetter(name)(config) for name in names}


def allowed(name: str) -> str:
    """Return the range or the possible values of a field in words, or "" if every value of its type is possible."""
    field = fields()[name]
    if field.annotation is bool:
        return "true or false"
    if get_origin(field.annotation) is Literal:
        return "one of " + ", ".join(map(str, get_args(field.annotation)))
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    parts = field.annotation, *get_args(field.annotation)  # a list's limits belong to the type of its items
    metadata = [*field.metadata, *(m for part in parts for m in getattr(part, "__metadata__", ()))]
    limits = [limit for m in metadata for limit in getattr(m, "metadata", [m])]
    return " and ".join(f"{word} {getattr(m, key)}" for m in limits for key, word in words.items() if hasattr(m, key))
