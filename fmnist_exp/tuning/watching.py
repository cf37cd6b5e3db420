"""What a search tells of its trials while it runs, and how tables show one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.tuning import objectives
from fmnist_exp.tuning import study as studies

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class TrialSummary:
    """One trial, as tables show it. `settings` are the searched fields."""

    number: int
    state: str
    settings: Mapping[str, Any]
    run_id: str
    epochs: int = 0
    val_accuracy: float | None = None
    parameters: int | None = None
    seconds: float = 0.0
    reason: str = ""


class Watcher:
    """Watches a search. Base class with nothing to say; override what is of interest."""

    def on_search(self, done: int, n_trials: int, deadline: float) -> None:
        """The search starts; `done` trials are there from before. `deadline` in time.monotonic's seconds."""

    def on_trial(self, number: int, settings: Mapping[str, Any], epochs: int) -> None:
        """A trial starts; it has at most `epochs` epochs."""

    def on_progress(self, number: int, epochs: float) -> None:
        """So many epochs of a trial are done; parts of the next count."""

    def on_retry(self, number: int, reason: str) -> None:
        """A trial is run again from its beginning."""

    def on_trial_end(self, trial: TrialSummary) -> None:
        """A trial ended, in whatever state."""

    def on_ending(self, step: str) -> None:
        """The trials are done; `step` says what is being done with the winner."""


def summary(config: ExperimentConfig, trial: FrozenTrial) -> TrialSummary:
    """A trial of the study as tables show it."""
    known = trial.user_attrs
    return TrialSummary(
        number=trial.number,
        state=trial.state.name,
        settings=studies.settings(config, trial),
        run_id=known.get("run_id", ""),
        epochs=len(trial.intermediate_values) or len(known.get(objectives.CURVE, [])),
        val_accuracy=known.get("val_accuracy"),
        parameters=known.get("parameters"),
        seconds=trial.duration.total_seconds() if trial.duration else 0.0,
        reason=known.get("error", ""),
    )
