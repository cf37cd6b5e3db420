"""The fields of an experiment by dotted name, such as `training.epochs`: their values, ranges and descriptions."""

import ast
import inspect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fmnist_exp.config import schema, search
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
    texts = _docstrings()
    return [
        FieldHelp(name, texts[section, name.rpartition(".")[2]], allowed(name), values.get(name, field.get_default()))
        for name, section, field in _walk(ExperimentConfig)
    ]


def _docstrings() -> dict[tuple[str, str], str]:
    """Return the docstring below each field in the schema's source, on one line, by the names of class and field.

    With `use_attribute_docstrings` pydantic would read them whenever the schema is imported, which takes longer than
    building the schema.
    """
    texts = {}
    trees = [ast.parse(inspect.getsource(module)) for module in (schema, search)]
    for section in (node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)):
        for field, text in itertools.pairwise(section.body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    texts[section.name, name] = " ".join(words.split())
    return texts


@cache
def fields() -> dict[str, FieldInfo]:
    """Return pydantic's information about every field by dotted name, in the schema's order."""
    return {name: field for name, _, field in _walk(ExperimentConfig)}


def _walk(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, FieldInfo]]:
    """Yield the dotted name of each field, the name of its section's class, and pydantic's information."""
    for name, field in section.model_fields.items():
        inner = SearchConfig if name == "search" else field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _walk(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, section.__name__, field


def flatten(config: ExperimentConfig) -> dict[str, Any]:
    """Return the value of every field by dotted name, in the schema's order; without a search, nothing about one."""
    names = (name for name in fields() if config.search or not name.startswith(("search.", "final")))
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
