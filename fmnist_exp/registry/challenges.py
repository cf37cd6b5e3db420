"""The challenges that a champion has met, counted from the tags of the versions that made them.

The gate tests the k-th challenger of a champion at a level that falls with k, so that many challenges in a row do not
promote a version by chance more often than one does. The logistic regression, which every champion must beat, counts
its challenges in the same way. Each version notes its own challenges, in the tag `challenges`. The registered model
notes the highest number of each opponent in a tag of the same name: the numbers of deleted versions stay spent.
"""

import random
import time
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from fmnist_exp.registry import versions
from fmnist_exp.tracking.names import ModelTag, VersionTag

FLOOR = "floor"  # name of the logistic regression among the opponents; the others are numbers of versions
PAUSE_SECONDS = 0.5  # at most, before a number is claimed again
REMEMBERED = 200  # challenges in one tag; the value of a tag has at most 5,000 characters


def number(client: MlflowClient, challenger: ModelVersion, opponent: str) -> int:
    """Return which challenge of the opponent this one is, counted from 1.

    A version that challenges the same opponent again keeps its number, since the same models give the same answers.
    """
    made = {number: _made(version.tags) for number, version in versions.by_number(client).items()}
    own = made.pop(str(challenger.version), {})
    return own.get(opponent) or 1 + max(known.get(opponent, 0) for known in (*made.values(), _highest(client)))


def claim(client: MlflowClient, challenger: ModelVersion, opponent: str) -> int:
    """Write the challenge's number to the challenger's version and to the registered model, and return it.

    It is written before the comparison, so that it counts even if the comparison is interrupted. A version that finds
    its number on another one, which may have been faster, tries again after a pause.
    """
    while True:
        claimed = number(client, challenger, opponent)
        _write(client, challenger, opponent, claimed)
        others = versions.by_number(client)
        others.pop(str(challenger.version), None)
        if all(_made(other.tags).get(opponent) != claimed for other in others.values()):
            break
        _write(client, challenger, opponent, None)
        time.sleep(random.uniform(0, PAUSE_SECONDS))
    while _highest(client).get(opponent, 0) < claimed:  # another version may write the tag at the same moment
        highest = _highest(client)
        highest.pop(opponent, None)  # the opponent that was challenged last is the last one in the tag
        client.set_registered_model_tag(versions.NAME, ModelTag.CHALLENGES, _text({**highest, opponent: claimed}))
    return claimed


def _write(client: MlflowClient, challenger: ModelVersion, opponent: str, challenge: int | None) -> None:
    """Write the number of the challenge to the challenger's version, or remove it from there."""
    made = _made(versions.find(client, str(challenger.version)).tags)
    made.pop(opponent, None)
    if challenge:
        made[opponent] = challenge
    versions.tag(client, challenger, {VersionTag.CHALLENGES: _text(made)})


def _highest(client: MlflowClient) -> dict[str, int]:
    """Return the highest number of a challenge by opponent, as the registered model notes it."""
    model = versions.registered_model(client)
    return _made(model.tags) if model else {}


def _text(made: Mapping[str, int]) -> str:
    return " ".join(f"{opponent}:{count}" for opponent, count in list(made.items())[-REMEMBERED:])


def _made(tags: Mapping[str, str]) -> dict[str, int]:
    """Return the numbers of challenges by opponent from the tags of a version, or of the registered model."""
    pairs = (text.partition(":") for text in tags.get(VersionTag.CHALLENGES, "").split())
    return {opponent: int(count) for opponent, _, count in pairs if count.isdecimal()}
