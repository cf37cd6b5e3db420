"""Locked requirements: the installed versions of some packages and of everything that these require."""

import functools
import importlib.metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@functools.cache  # it reads a hundred files, and the result is the same for every model
def locked(roots: tuple[str, ...]) -> tuple[str, ...]:
    """Return `name==version` of the packages and of all that they require on this platform, in alphabetical order."""
    versions: dict[str, str] = {}
    waiting = list(roots)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in versions:
            continue
        distribution = importlib.metadata.distribution(name)
        versions[name] = distribution.version
        for text in distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return tuple(f"{name}=={version}" for name, version in sorted(versions.items()))
