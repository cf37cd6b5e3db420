"""Entry points that train: main, train, baseline, mlp, cnn."""

from __future__ import annotations

import click

from fmnist_exp.cli.request import connect, fields_command, load_experiment, start_run, ui_command

_experiment = click.option(
    "--experiment",
    default="cnn",
    show_default=True,
    help="A path, a name in experiments/, or runs:/RUN_ID/experiment.yaml.",
)


@fields_command("main")
@_experiment
@click.pass_context
def main(ctx: click.Context, experiment: str) -> None:
    """Run one experiment (the same as train)."""
    _train(ctx, experiment)


@fields_command("train")
@_experiment
@click.pass_context
def train(ctx: click.Context, experiment: str) -> None:
    """Run one experiment."""
    _train(ctx, experiment)


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
    from fmnist_exp import console, tracking
    from fmnist_exp.experiment import run_experiment

    with (
        tracking.closing(start_run(client, "train", config)) as run,
        console.RunDisplay(config.name, config.training.epochs) as display,
    ):
        outcome = run_experiment(config, data, run, [display], score_test=True)
    console.show_outcomes({config.name: outcome})
    console.console.print(f"run {run.id}; compare runs with: {ui_command()}")


COMMANDS = (main, train, baseline, mlp, cnn)
