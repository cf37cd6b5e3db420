"""The record of each time that a model was scored on the test set: on the run that did it, and on the version."""

import datetime
from collections.abc import Mapping

from fmnist_exp.tracking.names import VersionTag
from fmnist_exp.tracking.run import Run

REMEMBERED = 20  # scorings of a version; all of them are counted
BETWEEN = "; "


def entry(run: Run) -> str:
    """Return the time (UTC), the kind of the run that scores the test set now, its user, and its id."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return f"{now} {run.kind} by {run.user}, run {run.id}"


def of_version(scored: str, known: Mapping[str, str]) -> dict[str, object]:
    """Return the tags of a version that has the tags `known` after one more scoring, which `scored` describes.

    A version of an earlier release has a test accuracy, but no record of the run that measured it.
    """
    before = [text for text in known.get(VersionTag.TEST_SCORED, "").split(BETWEEN) if text]
    count = int(known.get(VersionTag.TEST_SCORINGS, VersionTag.TEST_ACCURACY in known)) + 1
    return {
        VersionTag.TEST_SCORED: BETWEEN.join([*before, scored][-REMEMBERED:]),
        VersionTag.TEST_SCORINGS: count,
    }
