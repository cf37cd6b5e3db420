"""Entry points that train: main, train, baseline, mlp, cnn, ensemble."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from fmnist_exp.backend import loading
from fmnist_exp.cli.options import connect, fields_command, load_experiment, parse_fields, start_run, switch, ui_command
from fmnist_exp.config import files
from fmnist_exp.errors import RequestError

if TYPE_CHECKING:
    from fmnist_exp.config.schema import ExperimentConfig
    from fmnist_exp.data.dataset import FashionMNIST
    from fmnist_exp.experiment.checkpoints import Interrupted
    from fmnist_exp.experiment.resolve import Resolved

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
    help="Go on with a run that was killed, from its last epoch; it must have had training.checkpoint=true.",
)


_register = switch("--register", "Register the model as a version, which then tries the gate.")


@fields_command("main")
@_experiment
@_resume
@_register
@click.pass_context
def main(ctx: click.Context, experiment: str, resume: str | None, register: bool) -> None:
    """Run one experiment (the same as train)."""
    _train_or_go_on(ctx, experiment, resume, register)


@fields_command("train")
@_experiment
@_resume
@_register
@click.pass_context
def train(ctx: click.Context, experiment: str, resume: str | None, register: bool) -> None:
    """Run one experiment, or go on with one."""
    _train_or_go_on(ctx, experiment, resume, register)


@fields_command("mlp")
@_register
@click.pass_context
def mlp(ctx: click.Context, register: bool) -> None:
    """Run experiments/mlp.yaml, the best MLP."""
    _train(load_experiment("mlp", ctx.args), register)


@fields_command("cnn")
@_register
@click.pass_context
def cnn(ctx: click.Context, register: bool) -> None:
    """Run experiments/cnn.yaml, the best CNN."""
    _train(load_experiment("cnn", ctx.args), register)


@fields_command("ensemble")
@click.option("--members", required=True, help="Models, comma between them: models:/fashion-mnist/3,runs:/RUN_ID,…")
@switch("--register", "Register it as a version, which then tries the gate.", default="true")
@click.pass_context
def ensemble(ctx: click.Context, members: str, register: bool) -> None:
    """Average the answers of logged models, as one model that is scored, logged and registered."""
    uris = [uri.strip() for uri in members.split(",") if uri.strip()]
    if len(uris) < 2:
        raise RequestError(f"--members {members!r}: an ensemble needs two models at least, with a comma between them")
    once = {"training.epochs": 1}  # nothing is fitted: it is measured
    config = files.parse("{}", "ensemble", {**once, **parse_fields(ctx.args), "model.members": uris})
    loading.load_keras()
    from fmnist_exp.registry import lineage
    from fmnist_exp.tracking import store

    split = lineage.find(store.connect(), uris[0]).split_fields()
    _train(files.override(config, split), register)


@fields_command("baseline")
@click.pass_context
def baseline(ctx: click.Context) -> None:
    """Run the naive guess, logistic regression and the smallest network."""
    config = load_experiment("baseline", ctx.args)
    data, resolved = connect(config)
    from fmnist_exp.cli import display
    from fmnist_exp.experiment import resolve
    from fmnist_exp.experiment.baseline import run_baselines
    from fmnist_exp.tracking import run as runs

    with runs.closing(start_run(resolved.client, "baseline", resolved.config)) as run:
        resolve.log_choice(run, resolved.choice)
        outcomes = run_baselines(resolved.config, data, run, display.RunDisplay)
    display.show_outcomes(outcomes)
    display.console.print(f"run {run.id}; compare runs with: {ui_command()}")


def _train_or_go_on(ctx: click.Context, experiment: str, resume: str | None, register: bool) -> None:
    if resume is None:
        _train(load_experiment(experiment, ctx.args), register)
        return
    if experiment != DEFAULT:  # `mlflow run` passes the default on, so it cannot be told from nothing
        raise RequestError("--resume goes on with the run's own experiment; leave --experiment out")
    overrides = parse_fields(ctx.args)
    loading.load_keras()
    from fmnist_exp.experiment import checkpoints
    from fmnist_exp.tracking import store

    interrupted = checkpoints.find(store.connect(), resume)
    data, resolved = connect(checkpoints.resumed_config(interrupted, overrides))
    checkpoints.check_data(interrupted, data)
    _run(resolved, data, register, interrupted)


def _train(config: ExperimentConfig, register: bool) -> None:
    data, resolved = connect(config)
    _run(resolved, data, register)


def _run(
    resolved: Resolved,
    data: FashionMNIST,
    register: bool = False,
    interrupted: Interrupted | None = None,
) -> None:
    from fmnist_exp.cli import display
    from fmnist_exp.experiment import checkpoints, resolve
    from fmnist_exp.experiment.run import run_experiment
    from fmnist_exp.registry import gate
    from fmnist_exp.tracking import run as runs
    from fmnist_exp.training import fit as fitting

    registration = None
    config = resolved.config
    run = start_run(resolved.client, "train", config)
    fit = partial(fitting.fit, start=interrupted.state if interrupted else None)
    try:
        with runs.closing(run):
            resolve.log_choice(run, resolved.choice)
            if interrupted:
                checkpoints.take_over(interrupted, run)
                done = len(interrupted.state.epochs)
                display.console.print(f"going on after epoch {done} of run {interrupted.run.id}")
            with display.RunDisplay(config.name, config.training.epochs) as watcher:
                outcome = run_experiment(config, data, run, [watcher], score_test=True, fit=fit)
            display.show_outcomes({config.name: outcome})
            if register:
                registration = gate.register(
                    outcome.model_id, run.id, outcome.version_tags(run, data), run, config, data
                )
    except KeyboardInterrupt:
        if config.training.checkpoint and checkpoints.can_be_resumed(run):
            display.console.print(f"to continue: fmnist-exp train --resume {run.id}")
        raise
    if registration:
        display.show_registration(registration)
    display.console.print(f"run {run.id}; compare runs with: {ui_command()}")


COMMANDS = (main, train, baseline, mlp, cnn, ensemble)
