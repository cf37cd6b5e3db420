"""The challenges that a champion has met, counted from the tags of the versions that made them.

The gate tests the k-th challenger of a champion at a level that falls with k, so that many challenges in a row do not
promote a version by chance more often than one does. Each version notes its own challenges, in the tag `challenges`.
"""

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from fmnist_exp.registry import versions
from fmnist_exp.tracking.names import VersionTag

REMEMBERED = 200  # challenges of one version; the value of a tag has at most 5,000 characters


def number(client: MlflowClient, challenger: ModelVersion, champion: ModelVersion) -> int:
    """Return which challenge of the champion this one is, counted from 1.

    A version that challenges the same champion again keeps its number, since the same models give the same answers.
    """
    key = str(champion.version)
    made = {number: _made(version) for number, version in versions.by_number(client).items()}
    own = made.pop(str(challenger.version), {})
    return own.get(key) or 1 + max((others.get(key, 0) for others in made.values()), default=0)


def claim(client: MlflowClient, challenger: ModelVersion, champion: ModelVersion) -> int:
    """Write the challenge's number to the challenger's version, and return it.

    It is written before the comparison, so that it counts even if the comparison is interrupted. If another version
    has claimed the same number at the same moment, the version that was registered later takes the next one.
    """
    while True:
        claimed = number(client, challenger, champion)
        _write(client, challenger, champion, claimed)
        others = versions.by_number(client)
        others.pop(str(challenger.version), None)
        rivals = [number for number, other in others.items() if _made(other).get(str(champion.version)) == claimed]
        if not any(int(rival) < int(challenger.version) for rival in rivals):
            return claimed
        _write(client, challenger, champion, None)


def _write(client: MlflowClient, challenger: ModelVersion, champion: ModelVersion, challenge: int | None) -> None:
    """Write the number of the challenge to the challenger's version, or remove it from there."""
    made = _made(versions.find(client, str(challenger.version)))
    made.pop(str(champion.version), None)
    if challenge:
        made[str(champion.version)] = challenge
    texts = [f"{champion}:{count}" for champion, count in list(made.items())[-REMEMBERED:]]
    versions.tag(client, challenger, {VersionTag.CHALLENGES: " ".join(texts)})


def _made(version: ModelVersion) -> dict[str, int]:
    """Return the number of a version's challenge by champion."""
    pairs = (text.partition(":") for text in version.tags.get(VersionTag.CHALLENGES, "").split())
    return {champion: int(count) for champion, _, count in pairs if count.isdecimal()}
