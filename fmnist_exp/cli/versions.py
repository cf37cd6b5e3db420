"""Entry points for registered versions: evaluate, promote."""

from __future__ import annotations

import os

import click

from fmnist_exp.backend import loading
from fmnist_exp.cli.options import given, switch
from fmnist_exp.config.files import override
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.errors import RequestError

_source = click.option("--data.source", "source", help="Folder of the images. By default, the data set is located.")


@click.command("evaluate")
@click.option("--model", default="models:/fashion-mnist@champion", show_default=True, help="A registered version.")
@switch("--temperature", "Fit temperature scaling on validation images; report the calibration before and after it.")
@click.option("--seed", help="Random seed of the corruptions.")
@_source
def evaluate(model: str, temperature: bool, seed: str | None, source: str | None) -> None:
    """Score a registered version on the test set and on corrupted copies of it; write its model card."""
    config = override(ExperimentConfig(), given({"seed": seed, "data.source": source}))
    loading.load_keras()
    from fmnist_exp.cli import display
    from fmnist_exp.registry import evaluate as library

    with display.console.status("") as status:
        found, run_id = library.evaluate(model, config, temperature=temperature, run_id=_run_id(), status=status.update)
    display.show_assessment(found)
    display.show_run(run_id, " has the model card and the figures")


@click.command("promote")
@click.option("--version", help="Number or alias of a version. Default: challenger.")
@switch("--force", "Promote the version whatever the verdict of the gate is. The verdict is recorded.")
@switch("--back", "Make the previous champion champion again, without a gate.")
@click.option("--gate.level", "level", help="Significance level of the paired test.")
@click.option("--gate.min_images", "min_images", help="Smallest number of gate images for the test.")
@_source
def promote(
    version: str | None, force: bool, back: bool, level: str | None, min_images: str | None, source: str | None
) -> None:
    """Make a version the champion if it passes the gate."""
    if back and (version or force):
        raise RequestError("--back restores the previous champion; it takes neither --version nor --force")
    options = given({"gate.level": level, "gate.min_images": min_images, "data.source": source})
    config = override(ExperimentConfig(), options)
    from fmnist_exp.cli import display
    from fmnist_exp.registry import champions

    if back:
        result = champions.go_back(_run_id())
    else:
        result = champions.promote(version or "challenger", config, display.show_verdict, force=force, run_id=_run_id())
    display.show_promotion(result)


def _run_id() -> str | None:
    """Return the id of the run that `mlflow run` made for this command; child processes must not write into it."""
    return os.environ.pop("MLFLOW_RUN_ID", None)


COMMANDS = (evaluate, promote)
