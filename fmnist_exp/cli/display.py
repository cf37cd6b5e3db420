"""What a person sees while work goes on: one live line in a terminal, plain lines in a log; tables at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from fmnist_exp.experiment.outcome import Outcome
from fmnist_exp.registry.versions import NAME, Registration
from fmnist_exp.training.events import Epoch, FitCallback
from fmnist_exp.tuning.callback import SearchCallback, TrialSummary
from fmnist_exp.tuning.retention import Retention
from fmnist_exp.tuning.search import SearchResult

LOG_WIDTH = 140  # characters; a log has no width of its own
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else LOG_WIDTH)


class RunDisplay(FitCallback):
    """Shows a fit: a bar over all its steps in a terminal, and a line per epoch everywhere."""

    def __init__(self, name: str, epochs: int) -> None:
        self.name = name
        self.epochs = epochs
        self.bar = _bar(TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self.task = self.bar.add_task(f"{name}: starting", total=None)

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.stop()

    def on_step(self, epoch: int, step: int, steps: int) -> None:  # noqa: D102
        done = (epoch - 1) * steps + step
        self.bar.update(
            self.task,
            description=f"{self.name}: epoch {epoch}/{self.epochs}",
            completed=done,
            total=self.epochs * steps,
        )

    def on_epoch(self, epoch: Epoch) -> bool:  # noqa: D102
        m = epoch.metrics
        held_out = f"  validation {m['val_loss']:.4f} {m['val_accuracy']:.2%}" if "val_loss" in m else ""
        console.print(
            f"{self.name}: epoch {epoch.number:>{len(str(self.epochs))}}/{self.epochs}"
            f"  train {m['train_loss']:.4f} {m['train_accuracy']:.2%}"
            f"{held_out}"
            f"  rate {m['learning_rate']:.2e}  {m['epoch_seconds']:.1f} s"
        )
        return False


class SearchDisplay(SearchCallback):
    """Shows a search: best so far, pruned, time left, and a bar per running trial; a line per finished trial."""

    def __init__(self) -> None:
        self.bar = _bar(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
        self.task: TaskID = self.bar.add_task("starting", left="", total=None)
        self.trials: dict[int, TaskID] = {}  # those that run
        self.done = self.pruned = self.n_trials = 0
        self.best: TrialSummary | None = None
        self.start = self.deadline = 0.0
        self.ended = 0  # trials ended in this session
        self.study = ""  # its name, once it is open

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
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

    def on_retry(self, number: int, reason: str) -> None:  # noqa: D102
        console.print(f"trial {number:>3} runs again: {reason}")
        self.on_progress(number, 0.0)

    def on_trial_end(self, trial: TrialSummary) -> None:  # noqa: D102
        if trial.number in self.trials:
            self.bar.remove_task(self.trials.pop(trial.number))
        self.done += 1
        self.ended += 1
        self.pruned += trial.state == "PRUNED"
        accuracy = trial.val_accuracy or 0.0
        if trial.state == "COMPLETE" and (self.best is None or accuracy > (self.best.val_accuracy or 0.0)):
            self.best = trial
        outcome = (
            f"{accuracy:.2%} after {trial.epochs} {'epoch' if trial.epochs == 1 else 'epochs'}"
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
        best = f"best {self.best.val_accuracy:.2%} (trial {self.best.number})" if self.best else "no trial complete yet"
        text = f"{self.done}/{self.n_trials} trials  {best}  {self.pruned} pruned"
        part = sum(task.percentage / 100 for task in self.bar.tasks if task.id != self.task)
        self.bar.update(self.task, description=text, completed=self.done + part, left=self._left(part))

    def _left(self, part: float) -> str:
        """Time to the end of the search at this session's pace, and never past the deadline."""
        now = time.monotonic()
        limit = self.deadline - now
        progress = self.ended + part
        if progress > 0.1:
            limit = min(limit, (now - self.start) / progress * (self.n_trials - self.done - part))
        minutes, seconds = divmod(max(0, round(limit)), 60)
        return f"{minutes}:{seconds:02} left"


def show_search(result: SearchResult) -> None:
    """The best five trials of a search, and what was left aside."""
    title = f"Study {result.study}: the best of {sum(result.states.values())} trials"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("trial", "state", "validation", "epochs", "parameters", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("setting", overflow="fold")
    for trial in result.ranked[:5]:
        row = [str(trial.number), trial.state.lower(), f"{trial.val_accuracy:.2%}", str(trial.epochs)]
        table.add_row(*row, f"{trial.parameters:,}", f"{trial.seconds:.0f}", _settings(trial.settings))
    console.print(table)
    console.print("  ".join(f"{count} {state.lower()}" for state, count in result.states.items()))
    if result.front:
        console.print(f"Pareto front: trials {', '.join(map(str, result.front))} (study/pareto_front.csv)")
    if result.retention:
        show_retention(result.retention)


def show_retention(retention: Retention) -> None:
    """Whose weights stayed, and why others did that should not have."""
    kept = ", ".join(map(str, retention.kept))
    console.print(f"weights: deleted of {retention.deleted} trials, kept of {kept}")
    if retention.reason:
        console.print(f"weights: not all deleted; {retention.reason}")


def show_outcomes(outcomes: Mapping[str, Outcome]) -> None:
    """A line per model: name, parameters, seconds of fitting, validation and test accuracy."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("model", "parameters", "fit", "validation", "test"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for name, outcome in outcomes.items():
        test = f"{outcome.test.accuracy:.2%}" if outcome.test else ""
        validation = f"{outcome.validation.accuracy:.2%}" if outcome.validation else ""
        table.add_row(name, f"{outcome.parameters:,}", f"{outcome.fit.seconds:.0f} s", validation, test)
    console.print(table)


def show_registration(registration: Registration, test_accuracy: float | None = None) -> None:
    """The version, what the gate said, and how to serve it."""
    aliases = "challenger and champion" if registration.champion else "challenger; the champion stays"
    score = "" if test_accuracy is None else f"; test accuracy {test_accuracy:.2%}"
    console.print(f"registered {NAME} version {registration.version} ({aliases}){score}")
    console.print(f"gate:  {registration.reason}")
    model = f"models:/{NAME}/{registration.version}"
    console.print(f"serve: mlflow models serve -m {model} --env-manager local --port 8080")


def _bar(*columns: Any) -> Progress:
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _settings(settings: Mapping[str, Any]) -> str:
    return "  ".join(f"{name.partition('.')[2]}={_value(value)}" for name, value in settings.items())


def _value(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "-".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
