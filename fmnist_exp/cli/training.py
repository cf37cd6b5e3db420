"""Entry points that train: main, train, baseline, mlp, cnn."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from fmnist_exp.cli.request import connect, fields_command, load_experiment, parse_fields, start_run, ui_command
from fmnist_exp.errors import RequestError

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from fmnist_exp.checkpoints import Interrupted
    from fmnist_exp.config import ExperimentConfig
    from fmnist_exp.data import FashionMNIST

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


@fields_command("main")
@_experiment
@_resume
@click.pass_context
def main(ctx: click.Context, experiment: str, resume: str | None) -> None:
    """Run one experiment (the same as train)."""
    _train_or_go_on(ctx, experiment, resume)


@fields_command("train")
@_experiment
@_resume
@click.pass_context
def train(ctx: click.Context, experiment: str, resume: str | None) -> None:
    """Run one experiment, or go on with one."""
    _train_or_go_on(ctx, experiment, resume)


@fields_command("mlp")
@click.pass_context
def mlp(ctx: click.Context) -> None:
    """Run experiments/mlp.yaml, the best MLP."""
    _train(ctx, "mlp")


@fields_command("cnn")
@click.pass_context
def cnn(ctx: click.Context) -> None:
    """Run experiments/cnn.yaml, the best CNN."""
    _train(ctx, "cnn")


@fields_command("baseline")
@click.pass_context
def baseline(ctx: click.Context) -> None:
    """Run the naive guess, logistic regression and the smallest network."""
    config = load_experiment("baseline", ctx.args)
    client, data = connect(config)
    from fmnist_exp import console, tracking
    from fmnist_exp.baseline import run_baselines

    with tracking.closing(start_run(client, "baseline", config)) as run:
        outcomes = run_baselines(config, data, run, console.RunDisplay)
    console.show_outcomes(outcomes)
    console.console.print(f"run {run.id}; compare runs with: {ui_command()}")


def _train(ctx: click.Context, experiment: str) -> None:
    config = load_experiment(experiment, ctx.args)
    client, data = connect(config)
    _run(client, config, data)


def _train_or_go_on(ctx: click.Context, experiment: str, resume: str | None) -> None:
    if resume is None:
        _train(ctx, experiment)
        return
    if experiment != DEFAULT:  # `mlflow run` passes the default on, so it cannot be told from nothing
        raise RequestError("--resume goes on with the run's own experiment; leave --experiment out")
    overrides = parse_fields(ctx.args)
    from fmnist_exp import checkpoints, connection

    interrupted = checkpoints.find(connection.connect(), resume)
    config = checkpoints.config_of(interrupted, overrides)
    client, data = connect(config)
    checkpoints.check_data(interrupted, data)
    _run(client, config, data, interrupted)


def _run(
    client: MlflowClient, config: ExperimentConfig, data: FashionMNIST, interrupted: Interrupted | None = None
) -> None:
    from fmnist_exp import checkpoints, console, tracking, training
    from fmnist_exp.experiment import run_experiment

    run = start_run(client, "train", config)
    fit = partial(training.fit, start=interrupted.state if interrupted else None)
    try:
        with tracking.closing(run), console.RunDisplay(config.name, config.training.epochs) as display:
            if interrupted:
                checkpoints.take_over(interrupted, run)
                done = len(interrupted.state.epochs)
                console.console.print(f"going on after epoch {done} of run {interrupted.run.id}")
            outcome = run_experiment(config, data, run, [display], score_test=True, fit=fit)
    except KeyboardInterrupt:
        if config.training.checkpoint and checkpoints.can_go_on(run):
            console.console.print(f"to continue: fmnist-exp train --resume {run.id}")
        raise
    console.show_outcomes({config.name: outcome})
    console.console.print(f"run {run.id}; compare runs with: {ui_command()}")


COMMANDS = (main, train, baseline, mlp, cnn)
