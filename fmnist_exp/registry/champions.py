"""The history of champions: the versions that have had the alias `champion`, in order."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from fmnist_exp.errors import RequestError
from fmnist_exp.registry import versions
from fmnist_exp.registry.versions import CHAMPION, NAME, Registration
from fmnist_exp.tracking.names import ModelTag, VersionTag

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

REMEMBERED = 100  # champions; the value of a tag has at most 5,000 characters


def promote(client: MlflowClient, version: ModelVersion, reason: str) -> None:
    """Make a version the champion, and write down when, why and after which one."""
    _promote(client, version, [*history(client), str(version.version)], reason)


def go_back(client: MlflowClient) -> Registration:
    """Make the previous champion champion again; a second call goes back to the one before that.

    Raises:
        RequestError: there was no other champion, or all of them were deleted.
    """
    numbers, version = _previous(client)
    reason = f"back from version {history(client)[-1]}"
    _promote(client, version, numbers, reason)
    return Registration(str(version.version), True, reason)


def check_previous(client: MlflowClient) -> None:
    """Raise RequestError if there is no previous champion to go back to."""
    _previous(client)


def history(client: MlflowClient) -> list[str]:
    """Return the numbers of the champions in order, the present one last.

    The alias decides who the present champion is, since somebody may have moved it by hand.
    """
    model = versions.registered_model(client)
    numbers = str(model.tags.get(ModelTag.CHAMPIONS, "")).split() if model else []
    present = versions.aliases(client).get(CHAMPION)
    return numbers if present is None or numbers[-1:] == [present] else [*numbers, present]


def _previous(client: MlflowClient) -> tuple[list[str], ModelVersion]:
    """Return the history up to the previous champion, without deleted versions, and that champion."""
    present = str(versions.find(client, CHAMPION).version)
    known = versions.by_number(client)
    numbers = [number for number in history(client)[:-1] if number in known]
    while numbers and numbers[-1] == present:  # the version between two terms of the same champion was deleted
        numbers.pop()
    if not numbers:
        raise RequestError(f"no champion before version {present} exists; {versions.existing(client)}")
    return numbers, known[numbers[-1]]


def _promote(client: MlflowClient, version: ModelVersion, numbers: list[str], reason: str) -> None:
    """Move the alias first: if the rest is interrupted, `history` still ends with the new champion."""
    former = versions.version_by_alias(client, CHAMPION)
    client.set_registered_model_alias(NAME, CHAMPION, version.version)
    client.set_registered_model_tag(NAME, ModelTag.CHAMPIONS, " ".join(numbers[-REMEMBERED:]))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    after = former.version if former else "none"
    term: dict[str, object] = {VersionTag.CHAMPION_SINCE: now, VersionTag.CHAMPION_AFTER: after}
    versions.tag(client, version, {**term, VersionTag.CHAMPION_WHY: reason}, replacing="champion_")
    if former is not None:
        end: dict[str, object] = {VersionTag.CHAMPION_UNTIL: now, VersionTag.CHAMPION_FOLLOWED_BY: version.version}
        versions.tag(client, former, end)
