"""The output of commands: live lines in a terminal or plain lines in a log, and tables at the end.

The display of a search is in `search_display`, because its modules import Optuna.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import mlflow
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from fmnist_exp.evaluation import intervals
from fmnist_exp.evaluation.corruptions import SEVERITIES
from fmnist_exp.registry.versions import NAME, Registration
from fmnist_exp.tracking import escape
from fmnist_exp.tracking.redact import without_secrets
from fmnist_exp.tracking.spool import ids
from fmnist_exp.training.events import Epoch, FitCallback

if TYPE_CHECKING:
    from fmnist_exp.evaluation.robustness import Level
    from fmnist_exp.experiment.outcome import Outcome
    from fmnist_exp.registry.champions import Promotion
    from fmnist_exp.registry.gate import Verdict
    from fmnist_exp.registry.model_card import Assessment

LOG_WIDTH = 140  # characters; a log has no width of its own


class Terminal(Console):
    """A console that shows names and errors from files and stores as they are: no markup, no control characters."""

    def __init__(self) -> None:
        width = None if sys.stdout.isatty() else LOG_WIDTH
        super().__init__(highlight=False, soft_wrap=True, width=width, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a line, or a cell of a table, as Rich prints it."""
        return super().render_str(escape.terminal(text), **options)


class PlainColumn(ProgressColumn):
    """A column of a progress bar with a text of its task, for example `{task.description}`."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__()

    def render(self, task: Task) -> Text:
        """Return the text as Rich prints it."""
        return Text(escape.line(self.text.format(task=task)), no_wrap=True)


console = Terminal()


class RunDisplay(FitCallback):
    """Show a fit: a bar over all its steps in a terminal, and a line per epoch everywhere.

    `name` is the name of the model; `done` is the number of epochs that an interrupted run has finished.
    """

    def __init__(self, name: str, epochs: int, done: int = 0) -> None:
        self.name = name
        self.epochs = epochs
        self.done = done
        self.bar = progress_bar(PlainColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self.task = self.bar.add_task(f"{name}: starting", total=None)

    def __enter__(self) -> Self:
        if self.done:
            console.print(f"{self.name}: resuming after epoch {self.done}")
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def on_step(self, epoch: int, step: int, steps: int) -> None:  # noqa: D102
        done = (epoch - 1) * steps + step
        text = f"{self.name}: epoch {epoch}/{self.epochs}"
        self.bar.update(self.task, description=text, completed=done, total=self.epochs * steps)

    def on_epoch(self, epoch: Epoch) -> bool:  # noqa: D102
        m = epoch.metrics
        accuracy = intervals.text(m["val_accuracy"], epoch.images) if "val_loss" in m else ""
        held_out = f"  validation {m['val_loss']:.4f} {accuracy}" if accuracy else ""
        console.print(
            f"{self.name}: epoch {epoch.number:>{len(str(self.epochs))}}/{self.epochs}"
            f"  train {m['train_loss']:.4f} {m['train_accuracy']:.2%}"
            f"{held_out}"
            f"  rate {m['learning_rate']:.2e}  {m['epoch_seconds']:.1f} s"
        )
        return False


def show_outcomes(outcomes: Mapping[str, Outcome]) -> None:
    """Print a line per model: name, parameters, seconds of fitting, and the accuracies with their 95% intervals."""
    scored = any(outcome.test for outcome in outcomes.values())
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("model", "parameters", "fit", "validation", *(["test"] if scored else [])):
        table.add_column(name, justify="left" if name == "model" else "right")
    for name, outcome in outcomes.items():
        evaluations = (outcome.validation, outcome.test) if scored else (outcome.validation,)
        texts = [found.text if found else "" for found in evaluations]
        table.add_row(name, f"{outcome.parameters:,}", f"{outcome.fit.seconds:.0f} s", *texts)
    console.print(table)
    caution = "; models whose intervals overlap may be equally good" if len(outcomes) > 1 else ""
    console.print(f"accuracies, {intervals.EXPLANATION}{caution}")
    if not scored:
        console.print("not scored on the test set; --score_test true does so for a finished recipe")


def show_registration(registration: Registration, test_accuracy: str = "") -> None:
    """Print the version, its test accuracy if there is one, the verdict of the gate, and how to serve the version."""
    aliases = "challenger and champion" if registration.champion else "challenger; the champion stays"
    score = f"; test accuracy {test_accuracy}" if test_accuracy else ""
    console.print(f"registered {NAME} version {registration.version} ({aliases}){score}")
    console.print(f"gate:  {registration.reason}")
    model = f"models:/{NAME}/{registration.version}"
    console.print(f"serve: fmnist-exp serve --model {model}")


def show_verdict(verdict: Verdict) -> None:
    """Print the comparison by class, and the verdict of the gate."""
    if verdict.comparison:
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("class", "images", "challenger", "champion", "won", "lost"):
            table.add_column(name, justify="left" if name == "class" else "right")
        numbers = verdict.comparison.numbers()
        for name, row in {**numbers["classes"], "all": numbers}.items():
            count = row["images"] if name == "all" else 0  # of a class, the images won and lost say more
            accuracies = [intervals.text(row[f"{who}_accuracy"], count) for who in ("challenger", "champion")]
            table.add_row(name, f"{row['images']:,}", *accuracies, f"{row['won']}", f"{row['lost']}")
        console.print(table)
    console.print(f"export differs by {verdict.difference:.1g} in a probability; smoke request: {verdict.smoke}")
    if known := [f"version {version} {text}" for version, text in verdict.test_accuracy_texts.items() if text]:
        console.print(f"test accuracy, which decides nothing: {', '.join(known)}")
    if verdict.promoted:  # else the command ends with it
        console.print(verdict.sentence)


def show_assessment(found: Assessment) -> None:
    """Print the accuracy by corruption and severity, and the calibration."""
    scaled = found.temperature is not None
    title = f"Version {found.lineage.number}: accuracy on the test set"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("corruption")
    for name in (*map(str, SEVERITIES), "mean", "ECE", *(["ECE scaled"] if scaled else [])):
        table.add_column(name, justify="right")
    blank = [""] * len(SEVERITIES)
    table.add_row("clean", *blank, f"{found.clean.accuracy:.2%}", *_errors([found.clean]))
    for name, levels in found.corrupted.items():
        mean = sum(level.accuracy for level in levels) / len(levels)
        table.add_row(name, *(f"{level.accuracy:.2%}" for level in levels), f"{mean:.2%}", *_errors(levels))
    table.add_section()
    table.add_row("all corruptions", *blank, f"{found.mean.accuracy:.2%}", *_errors([found.mean]))
    console.print(table)
    console.print(
        f"clean {found.test.text}, all corruptions {found.mean_text}, {intervals.EXPLANATION};"
        f" no other accuracy is more uncertain than ±{found.half_width:.2%}"
    )
    if fitted := found.temperature:
        (before, after), (test_before, test_after) = fitted.validation, fitted.test
        console.print(
            f"temperature {fitted.value:.3f}: ECE on validation {before:.2%} → {after:.2%},"
            f" on the test set {test_before:.2%} → {test_after:.2%}"
        )


def _errors(levels: Sequence[Level]) -> list[str]:
    """Return the mean calibration error and, if a temperature was fitted, also that of the scaled probabilities."""
    scaled = [level.scaled_ece for level in levels if level.scaled_ece is not None]
    columns = [[level.ece for level in levels], *([scaled] if scaled else [])]
    return [f"{sum(column) / len(column):.2%}" for column in columns]


def show_promotion(promotion: Promotion) -> None:
    """Print which version is the champion, and the run that records the reason."""
    run = f"; run {promotion.run_id} says why" if promotion.run_id else ""
    console.print(f"version {promotion.version} is the champion {promotion.since}{run}")


def show_run(run_id: str, what: str = "") -> None:
    """Print a run's id, and how to view the tracking store: with a command, or at the address of its server."""
    if ids.is_local(run_id):
        console.print(f"run {run_id}{what}; it waits for: fmnist-exp sync")
        return
    uri = without_secrets(mlflow.get_tracking_uri())
    address = uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"
    console.print(f"run {run_id}{what}; look at it with: {address}")


def progress_bar(*columns: ProgressColumn) -> Progress:
    """Return a progress bar that is shown only in a terminal and is removed at the end."""
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
