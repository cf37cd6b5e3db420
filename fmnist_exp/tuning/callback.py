"""Callbacks of a search, and the summary of a trial for callbacks and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from fmnist_exp.evaluation import intervals
from fmnist_exp.tuning import objectives
from fmnist_exp.tuning.record import TrialRecord
from fmnist_exp.tuning.space import SearchSpace


@dataclass(frozen=True)
class TrialSummary:
    """One trial as tables show it. `settings` are the searched fields."""

    number: int
    state: str
    settings: Mapping[str, object]
    run_id: str
    epochs: int = 0
    val_accuracy: float = 0.0
    images: int = 0  # that val_accuracy was measured on
    parameters: int | None = None
    seconds: float = 0.0
    reason: str = ""

    @property
    def accuracy(self) -> str:
        """The validation accuracy with its 95% interval."""
        return intervals.text(self.val_accuracy, self.images)


class SearchCallback:
    """Base class for objects that follow a search; its methods do nothing. Override those of interest."""

    def on_study(self, name: str) -> None:
        """Handle the opening of the study. From now on, a search with this study name resumes it."""

    def on_notice(self, text: str) -> None:
        """Handle a notice for the user, for example that the winner is being fitted again."""

    def on_search(self, done: int, n_trials: int, deadline: float) -> None:
        """Handle the start of the search.

        Args:
            done: number of trials that earlier sessions finished.
            n_trials: number of finished trials at which the search ends.
            deadline: the time at which the search stops, in seconds of time.monotonic.
        """

    def on_trial(self, number: int, settings: Mapping[str, object], epochs: int) -> None:
        """Handle the start of a trial of at most `epochs` epochs."""

    def on_progress(self, number: int, epochs: float) -> None:
        """Handle the progress of a trial, in epochs; half an epoch is 0.5."""

    def on_pause(self, number: int, epochs: int) -> None:
        """Handle the pause of a trial after some epochs. `on_trial` is called if it goes on."""

    def on_retry(self, number: int, reason: str) -> None:
        """Handle a retry: the trial is executed again, from the last state that it has kept."""

    def on_fit(self, title: str, epochs: float, total: int) -> None:
        """Handle the progress of another fit of the winner, in epochs of `total` ones; half an epoch is 0.5."""

    def on_trial_end(self, trial: TrialSummary) -> None:
        """Handle the end of a trial, whatever its state."""


def summary(space: SearchSpace, trial: FrozenTrial, images: int) -> TrialSummary:
    """Return the summary of a trial of the study, which was measured on this number of validation images."""
    record = TrialRecord.of(trial)
    return TrialSummary(
        number=trial.number,
        state=trial.state.name,
        settings=space.settings(space.apply(trial.params)),
        run_id=record.run_id,
        epochs=len(objectives.curve(trial)),
        val_accuracy=record.val_accuracy,
        images=images,
        parameters=record.parameters,
        seconds=record.seconds(trial),
        reason=record.error,
    )
