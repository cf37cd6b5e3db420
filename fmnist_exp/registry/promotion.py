"""The promotion of a version to champion, and the way back, each as one library call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fmnist_exp.backend import loading
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data import dataset
from fmnist_exp.errors import WorkError
from fmnist_exp.registry import champions, versions
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store
from fmnist_exp.tracking.names import Tag

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from fmnist_exp.registry.gate import Verdict
    from fmnist_exp.tracking.run import Run


@dataclass(frozen=True)
class Promotion:
    """The champion after a promotion."""

    version: str
    since: Literal["now", "already", "again"]
    run_id: str | None  # of the comparison; None if the version was the champion already


def promote(
    reference: str,
    config: ExperimentConfig,
    show: Callable[[Verdict], None],
    *,
    force: bool = False,
    run_id: str | None = None,
) -> Promotion:
    """Make a version the champion if it passes the gate.

    Args:
        reference: the version's number or alias.
        config: its `gate` and `data.source` are used.
        show: is called with the verdict, before anything is raised.
        force: promote the version whatever the verdict is.
        run_id: id of an existing run for the comparison; None starts a new one.

    Raises:
        RequestError: there is no such version, or it cannot be compared with the champion.
        WorkError: the version did not pass; the run says why.
    """
    client = store.connect()
    challenger = versions.find(client, reference)
    number = str(challenger.version)
    if versions.aliases(client).get(versions.CHAMPION) == number:
        return Promotion(number, "already", None)
    loading.load_keras()
    from fmnist_exp.registry import gate  # the only part that needs Keras

    pairing = gate.pair(client, challenger, config.gate, dataset.load(config.data, seed=0), force=force)
    with runs.closing(_start(client, f"promote version {number}", run_id)) as run:
        verdict = gate.decide(client, pairing, run, config.gate, force=force)
        show(verdict)
        if not verdict.promoted:
            raise WorkError(f"version {number} does not become champion; {verdict.sentence}")
    return Promotion(number, "now", run.id)


def go_back(run_id: str | None = None) -> Promotion:
    """Make the previous champion champion again, without a gate. Raises RequestError if there is none."""
    client = store.connect()
    champions.check_previous(client)  # before a run is started
    with runs.closing(_start(client, "promote: back", run_id)) as run:
        again = champions.go_back(client)
        run.set_tags({Tag.VERSION: again.version, Tag.GATE: again.reason})
    return Promotion(again.version, "again", run.id)


def _start(client: MlflowClient, name: str, run_id: str | None) -> Run:
    # of the kinds of runs that users rely on, `evaluate` stands for all work on registered versions
    return runs.start_run(client, "evaluate", name, "", run_id=run_id)
