"""The output of a search: live lines in a terminal, a line per trial in a log, and a table at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Self

from rich import box
from rich.progress import BarColumn, TaskID
from rich.table import Table

from fmnist_exp.cli.display import PlainColumn, console, progress_bar
from fmnist_exp.tuning.callback import SearchCallback, TrialSummary
from fmnist_exp.tuning.result import SearchResult


class SearchDisplay(SearchCallback):
    """Show a search: highest accuracy, pruned trials, time left, a bar per running trial, a line per finished one."""

    def __init__(self) -> None:
        self.bar = progress_bar(PlainColumn("{task.description}"), BarColumn(), PlainColumn("{task.fields[left]}"))
        self.task: TaskID = self.bar.add_task("starting", left="", total=None)
        self.trials: dict[int, TaskID] = {}  # the running ones
        self.done = self.pruned = self.n_trials = 0
        self.best: TrialSummary | None = None
        self.start = self.deadline = 0.0
        self.ended = 0  # trials ended in this session
        self.study = ""  # its name, once it is open
        self.fit: tuple[str, TaskID] | None = None  # another fit of the winner, with its bar

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def on_search(self, done: int, n_trials: int, deadline: float) -> None:  # noqa: D102
        self.done, self.n_trials, self.deadline, self.start = done, n_trials, deadline, time.monotonic()
        self.bar.update(self.task, total=n_trials, completed=done)
        if done:
            console.print(f"resuming the study: {done} of {n_trials} trials are done")

    def on_trial(self, number: int, settings: Mapping[str, Any], epochs: int) -> None:  # noqa: D102
        self.trials[number] = self.bar.add_task("", left=_settings(settings), total=epochs)
        self.on_progress(number, 0.0)

    def on_progress(self, number: int, epochs: float) -> None:  # noqa: D102
        if number in self.trials:
            task = self.trials[number]
            total = self.bar.tasks[self.bar.task_ids.index(task)].total or 1
            epoch = min(int(epochs) + 1, int(total))
            self.bar.update(task, description=f"  trial {number}: epoch {epoch}/{total:.0f}", completed=epochs)
        self._show()

    def on_pause(self, number: int, epochs: int) -> None:  # noqa: D102
        if number in self.trials:
            self.bar.remove_task(self.trials.pop(number))
        self._show()

    def on_retry(self, number: int, reason: str) -> None:  # noqa: D102
        console.print(f"trial {number:>3} runs again: {reason}")
        self.on_progress(number, 0.0)

    def on_fit(self, title: str, epochs: float, total: int) -> None:  # noqa: D102
        if self.fit is None or self.fit[0] != title:
            self.fit = title, self.bar.add_task("", left="", total=total)
        epoch = min(int(epochs) + 1, total)
        self.bar.update(self.fit[1], description=f"  {title}: epoch {epoch}/{total}", completed=epochs)

    def on_trial_end(self, trial: TrialSummary) -> None:  # noqa: D102
        if trial.number in self.trials:
            self.bar.remove_task(self.trials.pop(trial.number))
        self.done += 1
        self.ended += 1
        self.pruned += trial.state == "PRUNED"
        if trial.state == "COMPLETE" and (self.best is None or trial.val_accuracy > self.best.val_accuracy):
            self.best = trial
        outcome = (
            f"{trial.accuracy} after {trial.epochs} {'epoch' if trial.epochs == 1 else 'epochs'}"
            if trial.val_accuracy
            else trial.reason
        )
        state = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}[trial.state]
        console.print(
            f"trial {trial.number:>3} {state:<8} {outcome}  {trial.seconds:.0f} s  {_settings(trial.settings)}"
        )
        self._show()

    def on_study(self, name: str) -> None:  # noqa: D102
        self.study = name

    def on_notice(self, text: str) -> None:  # noqa: D102
        console.print(text)

    def _show(self) -> None:
        best = f"highest {self.best.accuracy}, trial {self.best.number}" if self.best else "no trial complete yet"
        text = f"{self.done}/{self.n_trials} trials  {best}  {self.pruned} pruned"
        part = sum(task.percentage / 100 for task in self.bar.tasks if task.id != self.task)
        self.bar.update(self.task, description=text, completed=self.done + part, left=self._left(part))

    def _left(self, part: float) -> str:
        """Return the estimated time until the search ends, from the pace of this session and the deadline."""
        now = time.monotonic()
        limit = self.deadline - now
        progress = self.ended + part
        if progress > 0.1:
            limit = min(limit, (now - self.start) / progress * (self.n_trials - self.done - part))
        minutes, seconds = divmod(max(0, round(limit)), 60)
        return f"{minutes}:{seconds:02} left"


def show_search(result: SearchResult) -> None:
    """Print the most accurate trials of a search, the final fit, the Pareto front, and which weights were deleted."""
    count = sum(result.states.values())
    title = f"Study {result.study}: {count} trials, those with the highest accuracies first, and 95% intervals"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("trial", "state", "validation", "epochs", "parameters", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("setting", overflow="fold")
    for trial in result.ranked[:5]:
        row = [str(trial.number), trial.state.lower(), trial.accuracy, str(trial.epochs)]
        table.add_row(*row, f"{trial.parameters:,}", f"{trial.seconds:.0f}", _settings(trial.settings))
    console.print(table)
    if result.lead:
        console.print(result.lead)
    console.print("  ".join(f"{count} {state.lower()}" for state, count in result.states.items()))
    if result.final:
        console.print(f"final fit of the winner: {result.final} on the validation images")
    if result.front:
        console.print(f"Pareto front: trials {', '.join(map(str, result.front))} (study/pareto_front.csv)")
    if result.retention:
        kept = ", ".join(map(str, result.retention.kept))
        console.print(f"deleted the weights of {result.retention.deleted} trials; kept trials {kept}")
        if result.retention.reason:
            console.print(f"not all weights could be deleted: {result.retention.reason}")


def _settings(settings: Mapping[str, Any]) -> str:
    return "  ".join(f"{name.partition('.')[2]}={_value(value)}" for name, value in settings.items())


def _value(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "-".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
