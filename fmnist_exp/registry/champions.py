"""Champions: promote a version through the gate, return to the previous champion, and keep the history."""

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from fmnist_exp.backend import loading
from fmnist_exp.config.schema import ExperimentConfig, GateConfig
from fmnist_exp.data import dataset
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.export import signing
from fmnist_exp.registry import versions
from fmnist_exp.registry.versions import CHAMPION, NAME, Registration
from fmnist_exp.tracking import access, escape
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking.names import ModelTag, Tag, VersionTag
from fmnist_exp.tracking.spool import ids
from fmnist_exp.tracking.writing import texts

if TYPE_CHECKING:
    from fmnist_exp.registry.gate import Verdict

KIND: Final = "evaluate"  # of the kinds of runs, it stands for all work on registered versions
REMEMBERED = 100  # champions; the value of a tag has at most 5,000 characters


@dataclass(frozen=True)
class Promotion:
    """The champion after a promotion."""

    version: str
    since: Literal["now", "already", "again"]
    run_id: str | None  # of the comparison; None if the version was the champion already


def promote(
    reference: str,
    config: ExperimentConfig,
    show: Callable[["Verdict"], None],
    *,
    force: bool = False,
    run_id: str | None = None,
) -> Promotion:
    """Promote the version with this number or alias if it passes the gate; with `force`, promote it in any case.

    `show` is called with the verdict before anything is raised. The comparison is written to a new run, or to `run_id`.

    Raises:
        RequestError: there is no such version, or it cannot be compared with the champion.
        WorkError: the version did not pass; the run says why.
    """
    signing.check()
    client = access.connect()
    challenger = versions.find(client, reference)
    number = str(challenger.version)
    if versions.aliases(client).get(CHAMPION) == number:
        return Promotion(number, "already", None)
    loading.load_keras()
    from fmnist_exp.registry import gate, pairing  # late: they import Keras, which the way back does not need

    pair = pairing.pair(client, challenger, config.gate, dataset.load(config.data, seed=0), force=force)
    with runs.closing(runs.start_run(client, KIND, f"promote version {number}", "", run_id=run_id)) as run:
        verdict = gate.decide(pair, run, config.gate, force=force)
        if verdict.promoted:
            set_champion(client, challenger, verdict.sentence)
        run.set_tags({Tag.NOTE: f"Version {number} before the gate: {escape.markdown(verdict.sentence)}\n"})
        show(verdict)
        if not verdict.promoted:
            raise WorkError(f"version {number} does not become champion; {verdict.sentence}")
    return Promotion(number, "now", run.id)


def register(
    model_id: str,
    run_id: str,
    tags: Mapping[str, object],
    run: runs.Run,
    config: GateConfig,
    data: dataset.FashionMNIST,
) -> Registration:
    """Register the logged model of run `run_id`, and send it to the gate; `run` gets the comparison."""
    version = versions.register(run.client, model_id, run_id, {VersionTag.RUN_ID: run_id, **tags})
    run.set_tags({Tag.VERSION: version.version})
    return challenge(version, run, config, data)


def register_later(model_id: str, run_id: str, tags: Mapping[str, object], run: runs.Run) -> None:
    """Register the logged model of run `run_id` when the store gets what `run` has written. The gate is not asked."""
    found = texts({VersionTag.RUN_ID: run_id, **tags})
    run.write_about(run_id, "register", {"id": ids.new(), "model_id": model_id, "tags": found})


def challenge(version: ModelVersion, run: runs.Run, config: GateConfig, data: dataset.FashionMNIST) -> Registration:
    """Send a version that was just registered to the gate. If the gate refuses it, it stays a challenger."""
    number = str(version.version)
    if versions.aliases(run.client).get(CHAMPION) == number:
        return Registration(number, True, "it was the champion before")
    from fmnist_exp.registry import gate, pairing  # late: see above

    verdict = gate.decide(pairing.pair(run.client, version, config, data, force=True), run, config)
    if verdict.promoted:
        set_champion(run.client, version, verdict.sentence)
    return Registration(number, verdict.promoted, verdict.sentence)


def go_back(run_id: str | None = None) -> Promotion:
    """Make the previous champion champion again, without a gate; a second call goes back to the one before that.

    Raises RequestError if there was no other champion, or all of them were deleted.
    """
    client = access.connect()
    numbers, version = _previous(client)  # before a run is started
    with runs.closing(runs.start_run(client, KIND, "promote: back", "", run_id=run_id)) as run:
        reason = f"back from version {history(client)[-1]}"
        set_champion(client, version, reason, numbers)
        note = f"Version {version.version} is the champion again: {escape.markdown(reason)}\n"
        run.set_tags({Tag.VERSION: version.version, Tag.GATE: reason, Tag.NOTE: note})
    return Promotion(str(version.version), "again", run.id)


def history(client: MlflowClient) -> list[str]:
    """Return the numbers of the champions in order, the present one last.

    The alias decides who the present champion is, since somebody may have moved it by hand.
    """
    model = versions.registered_model(client)
    numbers = str(model.tags.get(ModelTag.CHAMPIONS, "")).split() if model else []
    present = versions.aliases(client).get(CHAMPION)
    return numbers if present is None or numbers[-1:] == [present] else [*numbers, present]


def set_champion(client: MlflowClient, version: ModelVersion, reason: str, numbers: list[str] | None = None) -> None:
    """Make a version the champion without a gate, and record the time, the reason and the previous champion.

    `numbers` is the new history, which ends with the version; with None, the version is added to the present history.
    """
    numbers = numbers or [*history(client), str(version.version)]
    former = versions.version_by_alias(client, CHAMPION)
    # the alias first: if the rest is interrupted, `history` still ends with the new champion
    client.set_registered_model_alias(NAME, CHAMPION, version.version)
    client.set_registered_model_tag(NAME, ModelTag.CHAMPIONS, " ".join(numbers[-REMEMBERED:]))
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    after = former.version if former else "none"
    term: dict[str, object] = {VersionTag.CHAMPION_SINCE: now, VersionTag.CHAMPION_AFTER: after}
    versions.tag(client, version, {**term, VersionTag.CHAMPION_WHY: reason}, replacing="champion_")
    if former is not None:
        end: dict[str, object] = {VersionTag.CHAMPION_UNTIL: now, VersionTag.CHAMPION_FOLLOWED_BY: version.version}
        versions.tag(client, former, end)


def _previous(client: MlflowClient) -> tuple[list[str], ModelVersion]:
    """Return the history that ends with the previous champion, without deleted versions, and that champion."""
    present = str(versions.find(client, CHAMPION).version)
    known = versions.by_number(client)
    numbers = [number for number in history(client)[:-1] if number in known]
    while numbers and numbers[-1] == present:  # the version between two terms of the same champion was deleted
        numbers.pop()
    if not numbers:
        raise RequestError(f"no champion before version {present} exists; {versions.existing(client)}")
    return numbers, known[numbers[-1]]
