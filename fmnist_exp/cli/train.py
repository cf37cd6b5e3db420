"""Entry points that train: main, train, baseline, mlp, cnn, ensemble, reproduce."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

import click

from fmnist_exp.backend import loading
from fmnist_exp.cli.options import FieldsCommand, load_experiment, offline, parse_fields, switch
from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.errors import RequestError, WorkError

DEFAULT = "cnn"

_experiment = click.option(
    "--experiment",
    default=DEFAULT,
    show_default=True,
    help="A path, a name in experiments/, or runs:/RUN_ID/experiment.yaml.",
)
_resume = click.option(
    "--resume",
    metavar="RUN_ID",
    help="Resume a killed run from its last epoch. The run must have had training.checkpoint=true.",
)
_register = switch("--register", "Register the model as a version and send it to the gate.")
_SCORE = "Score the model on the test set"
_score_finished = switch("--score_test", f"{_SCORE}; the default, since the recipe is finished.", default="true")
_score_unchanged = switch(
    "--score_test",
    f"{_SCORE}. The default is to do so with --register, or if no field of model, training and augmentation is changed,"
    " because the recipe is finished then.",
    default=None,
)
_score_registered = switch(
    "--score_test",
    f"{_SCORE}. The default is to do so only with --register, because a recipe that is being developed is judged on"
    " validation images.",
    default=None,
)


@click.command("train", cls=FieldsCommand)
@_experiment
@_resume
@_register
@_score_registered
@offline
@click.pass_context
def train(
    ctx: click.Context, experiment: str, resume: str | None, register: bool, score_test: bool | None, offline: bool
) -> None:
    """Run one experiment, or resume a killed run."""
    if resume is None:
        _run("train", load_experiment(experiment, ctx.args, offline=offline), register, score_test, offline=offline)
        return
    if offline:
        raise RequestError("--resume reads the interrupted run from the tracking store; leave --offline out")
    if experiment != DEFAULT:  # `mlflow run` passes the default on, so that it does not differ from a missing option
        raise RequestError("--resume continues the run's own experiment; leave --experiment out")
    _run("train", parse_fields(ctx.args), register, score_test, resume)


_help = "Run one experiment (the same as train)."
main = FieldsCommand("main", params=train.params, callback=train.callback, help=_help)


@click.command("mlp", cls=FieldsCommand)
@_register
@_score_unchanged
@offline
@click.pass_context
def mlp(ctx: click.Context, register: bool, score_test: bool | None, offline: bool) -> None:
    """Run experiments/mlp.yaml, the best MLP."""
    config = load_experiment("mlp", ctx.args)
    _run("train", config, register, _or_unchanged(score_test, "mlp", config), offline=offline)


@click.command("cnn", cls=FieldsCommand)
@_register
@_score_unchanged
@offline
@click.pass_context
def cnn(ctx: click.Context, register: bool, score_test: bool | None, offline: bool) -> None:
    """Run experiments/cnn.yaml, the best CNN that trains in minutes."""
    config = load_experiment("cnn", ctx.args)
    _run("train", config, register, _or_unchanged(score_test, "cnn", config), offline=offline)


def _or_unchanged(score_test: bool | None, name: str, config: ExperimentConfig) -> bool | None:
    """Return whether to score the test set: as the user says, or if `config` is still the finished recipe `name`."""
    recipe = files.load(name)
    changed = any(getattr(config, part) != getattr(recipe, part) for part in ("model", "training", "augmentation"))
    return score_test if changed or score_test is not None else True


@click.command("ensemble", cls=FieldsCommand)
@click.option("--members", required=True, help="Models, separated by commas: models:/fashion-mnist/3,runs:/RUN_ID.")
@switch("--register", "Register the ensemble as a version and send it to the gate.", default="true")
@_score_registered
@click.pass_context
def ensemble(ctx: click.Context, members: str, register: bool, score_test: bool | None) -> None:
    """Average the probabilities of logged models in one model; score, log and register it."""
    uris = [uri.strip() for uri in members.split(",") if uri.strip()]
    if len(uris) < 2:
        raise RequestError(f"--members {members!r}: an ensemble needs at least two models, with a comma between them")
    once = {"training.epochs": 1}  # nothing is fitted; the epoch only measures
    config = files.parse("{}", "ensemble", {**once, **parse_fields(ctx.args), "model.members": uris})
    _run("ensemble", config, register, score_test)


@click.command("baseline", cls=FieldsCommand)
@_score_finished
@offline
@click.pass_context
def baseline(ctx: click.Context, score_test: bool, offline: bool) -> None:
    """Run the naive guess, logistic regression and the smallest network."""
    _run("baseline", load_experiment("baseline", ctx.args), score_test=score_test, offline=offline)


@click.command("reproduce")
@click.argument("run_id")
@switch("--force", "Run it also under conditions that differ from those of the original.")
def reproduce(run_id: str, force: bool) -> None:
    """Run an earlier run again, with as many threads, and compare every number of the fit."""
    loading.load_keras()
    from fmnist_exp.cli import display
    from fmnist_exp.experiment import reproduce as library

    new = os.environ.pop("MLFLOW_RUN_ID", None)  # child processes must not write into this run
    result = library.reproduce(run_id, display.RunDisplay, force=force, new_run_id=new)
    display.show_run(result.run_id)
    if not result.identical:
        raise WorkError(result.sentence(run_id))
    display.console.print(result.sentence(run_id))


def _run(
    kind: Literal["train", "ensemble", "baseline"],
    experiment: ExperimentConfig | Mapping[str, str],
    register: bool = False,
    score_test: bool | None = None,
    resume: str = "",
    offline: bool = False,
) -> None:
    """Run an experiment, or resume the run `resume`, for which `experiment` has the overrides; print the result."""
    loading.load_keras()
    from fmnist_exp.cli import display
    from fmnist_exp.experiment import baseline
    from fmnist_exp.experiment import train as library

    request = library.TrainRequest(
        experiment=experiment if isinstance(experiment, ExperimentConfig) else library.Resume(resume, experiment),
        register=register,
        score_test=score_test,
        offline=offline,
        run_id=os.environ.pop("MLFLOW_RUN_ID", None),  # child processes must not write into this run
        display=display.RunDisplay,
    )
    result = {"train": library.train, "ensemble": library.ensemble, "baseline": baseline.run_baselines}[kind](request)
    if result.status == "interrupted":
        if result.resumable:
            display.console.print(f"to continue: fmnist-exp train --resume {result.run_id}")
        raise click.Abort
    display.show_outcomes(result.outcomes)
    if result.registration:
        display.show_registration(result.registration)
    display.show_run(result.run_id)


COMMANDS = (main, train, baseline, mlp, cnn, ensemble, reproduce)
