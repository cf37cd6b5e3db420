"""TODO part of registry: Versions of the registered model: their aliases, their tags, and who was champion before."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from fmnist_exp.errors import RequestError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

from fmnist_exp.registry.versions import CHAMPION, MISSING, NAME, _existing, find, tag, version_by_alias

REIGNS = "champions"  # tag of the registered model: its champions in order, the present one last
REMEMBERED = 100  # champions; a tag's value has at most 5,000 characters


def crown(client: MlflowClient, version: ModelVersion, why: str) -> None:
    """Make a version the champion, and write down whom it followed, when and why."""
    former = version_by_alias(client, CHAMPION)
    line = _line(client, former)
    _enthrone(client, version, [*line, str(version.version)], why, former)


def before(client: MlflowClient) -> ModelVersion:
    """The champion before the present one. Raises RequestError if there was none, or it was deleted."""
    present = find(client, CHAMPION)
    return _before(client, _line(client, present))[1]


def go_back(client: MlflowClient) -> ModelVersion:
    """Make the champion before the present one champion again; going back twice goes back two champions.

    Raises RequestError if there was none, or it was deleted.
    """
    present = find(client, CHAMPION)
    line, version = _before(client, _line(client, present))
    _enthrone(client, version, line, f"back from version {present.version}", present)
    return find(client, CHAMPION)


def _line(client: MlflowClient, present: ModelVersion | None) -> list[str]:
    """The champions in order. The alias is the truth: who was made champion by hand is the last of the line."""
    from mlflow.exceptions import MlflowException

    try:
        line = str(client.get_registered_model(NAME).tags.get(REIGNS, "")).split()
    except MlflowException as error:
        if error.error_code not in MISSING:
            raise
        line = []
    if present is not None and line[-1:] != [str(present.version)]:
        line.append(str(present.version))
    return line


def _before(client: MlflowClient, line: list[str]) -> tuple[list[str], ModelVersion]:
    """The line up to the last champion but one, and that version."""
    known = {str(version.version): version for version in client.search_model_versions(f"name = '{NAME}'")}
    past = [number for number in line[:-1] if number in known]
    while past and past[-1] == line[-1]:  # a version between two reigns of the same one was deleted
        past.pop()
    if not past:
        raise RequestError(f"there was no champion before version {line[-1]}, or it was deleted; {_existing(client)}")
    return past, known[past[-1]]


def _enthrone(
    client: MlflowClient, version: ModelVersion, line: list[str], why: str, former: ModelVersion | None
) -> None:
    """Move the alias first: if what follows is cut off, the next change mends the line of champions by it."""
    client.set_registered_model_alias(NAME, CHAMPION, version.version)
    client.set_registered_model_tag(NAME, REIGNS, " ".join(line[-REMEMBERED:]))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    before = str(former.version) if former else "none"
    reign = {"champion_since": now, "champion_after": before, "champion_why": why}
    tag(client, version, reign, instead_of="champion_")
    if former is not None:
        tag(client, former, {"champion_until": now, "champion_followed_by": version.version})
