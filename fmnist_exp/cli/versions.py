"""Entry points for registered versions: evaluate, promote."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from fmnist_exp.backend import loading
from fmnist_exp.cli.options import switch, ui_command
from fmnist_exp.config.files import override
from fmnist_exp.config.schema import DataConfig, ExperimentConfig
from fmnist_exp.errors import RequestError, WorkError

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from fmnist_exp.evaluation.robustness import Level
    from fmnist_exp.registry.assessment import Assessment
    from fmnist_exp.registry.gate import Verdict
    from fmnist_exp.tracking.run import Run


_source = click.option("--data.source", "source", help="Folder of the images. Default: find them.")


@click.command("evaluate")
@click.option("--model", default="models:/fashion-mnist@champion", show_default=True, help="A registered version.")
@switch("--temperature", "Fit temperature scaling on validation images; report calibration before and after.")
@click.option("--seed", help="Of the corruptions.")
@_source
def evaluate(model: str, temperature: bool, seed: str | None, source: str | None) -> None:
    """Score a registered version on the test set and on corrupted copies of it; write its model card."""
    config = override(ExperimentConfig(), {"seed": seed} if seed is not None else {})
    from fmnist_exp.tracking import run as runs
    from fmnist_exp.tracking import store

    client = store.connect()
    loading.load_keras()
    from fmnist_exp.cli import display
    from fmnist_exp.data import dataset
    from fmnist_exp.registry import assessment, lineage, versions
    from fmnist_exp.registry import evaluate as evaluations

    subject = lineage.trace(client, versions.find_uri(client, model))
    data = subject.held_out.split(dataset.load(DataConfig(source=source), config.seed))
    if temperature and not len(data.validation.images):
        raise RequestError(f"--temperature: version {subject.number} was trained on all images: none is left for it")
    with runs.closing(_start(client, f"evaluate version {subject.number}")) as run:
        with display.console.status("") as status:
            found = assessment.assess(subject, data, config.seed, temperature=temperature, progress=status.update)
        evaluations.write(client, found, data, run)
    show_assessment(found)
    display.console.print(f"run {run.id} has the model card and the figures; look: {ui_command()}")


@click.command("promote")
@click.option("--version", help="A version's number or alias. Default: challenger.")
@switch("--force", "Promote whatever the gate says; its verdict is written down.")
@switch("--back", "Make the champion before the present one champion again, without a gate.")
@click.option("--gate.level", "level", help="Level of the paired test.")
@click.option("--gate.min_images", "min_images", help="Validation images that the test needs at least.")
@_source
def promote(
    version: str | None, force: bool, back: bool, level: str | None, min_images: str | None, source: str | None
) -> None:
    """Make a version the champion if it passes the gate."""
    if back and (version or force):
        raise RequestError("--back goes to the champion before; it takes neither --version nor --force")
    given = {"gate.level": level, "gate.min_images": min_images}
    config = override(ExperimentConfig(), {name: value for name, value in given.items() if value is not None}).gate
    from fmnist_exp.tracking import run as runs
    from fmnist_exp.tracking import store

    client = store.connect()
    if back:
        _go_back(client)
        return
    loading.load_keras()
    from fmnist_exp.cli.display import console
    from fmnist_exp.data import dataset
    from fmnist_exp.registry import gate, versions

    challenger = versions.find(client, version or versions.CHALLENGER)
    number = str(challenger.version)
    if versions.aliases(client).get(versions.CHAMPION) == number:
        console.print(f"version {number} is the champion already")
        return
    pairing = gate.pair(client, challenger, config, dataset.load(DataConfig(source=source), seed=0), force=force)
    with runs.closing(_start(client, f"promote version {number}")) as run:
        verdict = gate.decide(client, pairing, run, config, force=force)
        show_verdict(verdict)
        if not verdict.promoted:
            raise WorkError(f"version {number} does not become champion; {verdict.sentence}")
    console.print(f"version {number} is the champion now; run {run.id} has the comparison")


def _go_back(client: MlflowClient) -> None:
    from fmnist_exp.cli.display import console
    from fmnist_exp.registry import champions
    from fmnist_exp.tracking import run as runs

    champions.check_previous(client)  # refuses before a run is started
    with runs.closing(_start(client, "promote: back")) as run:
        again = champions.go_back(client)
        run.set_tags({"fmnist.version": again.version, "fmnist.gate": again.reason})
    console.print(f"version {again.version} is the champion again, {again.reason}; run {run.id}")


def _start(client: MlflowClient, name: str) -> Run:
    """Start the command's run, or take over the one that `mlflow run` made for it."""
    from fmnist_exp.tracking import run as runs

    run_id = os.environ.pop("MLFLOW_RUN_ID", None)  # child processes must not write into this run
    return runs.start_run(client, "evaluate", name, "", run_id=run_id)


def show_verdict(verdict: Verdict) -> None:
    """The comparison by class, and what the gate found."""
    from rich import box
    from rich.table import Table

    from fmnist_exp.cli.display import console

    if verdict.comparison:
        table = Table(box=box.SIMPLE_HEAD)
        for name in ("class", "images", "challenger", "champion", "won", "lost"):
            table.add_column(name, justify="left" if name == "class" else "right")
        numbers = verdict.comparison.numbers()
        for name, row in {**numbers["classes"], "all": numbers}.items():
            accuracies = [f"{row[f'{who}_accuracy']:.2%}" for who in ("challenger", "champion")]
            table.add_row(name, f"{row['images']:,}", *accuracies, f"{row['won']}", f"{row['lost']}")
        console.print(table)
    console.print(f"export differs by {verdict.difference:.1g} in a probability; smoke request: {verdict.smoke}")
    known = [
        f"version {version} {float(value):.2%}"
        for version, value in verdict.test_accuracy.items()
        if value != "unknown"
    ]
    if known:
        console.print(f"test accuracy, which decides nothing: {', '.join(known)}")
    if verdict.promoted:  # else the command ends with it
        console.print(verdict.sentence)


def show_assessment(found: Assessment) -> None:
    """Accuracy by corruption and severity, and calibration."""
    from rich import box
    from rich.table import Table

    from fmnist_exp.cli.display import console
    from fmnist_exp.evaluation.corruptions import SEVERITIES

    scaled = found.temperature is not None
    table = Table(
        title=f"Version {found.lineage.number}: accuracy on the test set", title_justify="left", box=box.SIMPLE_HEAD
    )
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
    if fitted := found.temperature:
        (before, after), (test_before, test_after) = fitted.validation, fitted.test
        console.print(
            f"temperature {fitted.value:.3f}: ECE on validation {before:.2%} → {after:.2%},"
            f" on the test set {test_before:.2%} → {test_after:.2%}"
        )


def _errors(levels: Sequence[Level]) -> list[str]:
    """The mean calibration error, and with a temperature that of the scaled probabilities."""
    scaled = [level.scaled_ece for level in levels if level.scaled_ece is not None]
    columns = [[level.ece for level in levels], *([scaled] if scaled else [])]
    return [f"{sum(column) / len(column):.2%}" for column in columns]


COMMANDS = (evaluate, promote)
