"""Exact versions of the packages that a model needs, and of those that these need, as they are installed here."""

from __future__ import annotations

import functools
import importlib.metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@functools.cache  # it reads a hundred files, the same for each model
def locked(roots: tuple[str, ...]) -> tuple[str, ...]:
    """`name==version` for the packages and everything they require on this platform, in alphabetical order."""
    found: dict[str, str] = {}
    waiting = list(roots)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        distribution = importlib.metadata.distribution(name)
        found[name] = distribution.version
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return tuple(f"{name}=={version}" for name, version in sorted(found.items()))
