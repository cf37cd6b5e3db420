"""Find a private API, or say which library no longer has it."""

from __future__ import annotations

import importlib
import importlib.metadata
import operator
import platform
from typing import Any


class MissingAPIError(ImportError):
    """An installed library lacks a private API that the package uses."""

    def __init__(self, library: str, name: str) -> None:
        try:
            version = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:  # the standard library
            version = f"of Python {platform.python_version()}"
        super().__init__(
            f"{library} {version} has no {name}, a private API that fmnist_exp uses; install the version that"
            " requirements.txt names, or adapt fmnist_exp/compat"
        )


def find(library: str, module: str, name: str) -> Any:
    """Return the object with this dotted name in a module."""
    try:
        return operator.attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise MissingAPIError(library, f"{module}.{name}") from error


def attribute(library: str, owner: object, name: str) -> Any:
    """Return an attribute of an object."""
    try:
        return getattr(owner, name)
    except AttributeError as error:
        kind = owner if isinstance(owner, type) else type(owner)
        raise MissingAPIError(library, f"{kind.__name__}.{name}") from error
