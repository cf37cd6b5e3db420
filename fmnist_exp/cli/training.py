"""Entry points that train: main, train, baseline, mlp, cnn, ensemble."""

from __future__ import annotations

import click

from fmnist_exp import experiment_files
from fmnist_exp.cli.request import (
    connect,
    fields_command,
    load_experiment,
    parse_fields,
    start_run,
    switch,
    ui_command,
)
from fmnist_exp.config import ExperimentConfig
from fmnist_exp.errors import RequestError

_experiment = click.option(
    "--experiment",
    default="cnn",
    show_default=True,
    help="A path, a name in experiments/, or runs:/RUN_ID/experiment.yaml.",
)


_register = switch("--register", "Register the model as a version, which then tries the gate.")


@fields_command("main")
@_experiment
@_register
@click.pass_context
def main(ctx: click.Context, experiment: str, register: bool) -> None:
    """Run one experiment (the same as train)."""
    _train(load_experiment(experiment, ctx.args), register)


@fields_command("train")
@_experiment
@_register
@click.pass_context
def train(ctx: click.Context, experiment: str, register: bool) -> None:
    """Run one experiment."""
    _train(load_experiment(experiment, ctx.args), register)


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
    config = experiment_files.parse("{}", "ensemble", {**parse_fields(ctx.args), "model.members": uris})
    from fmnist_exp import connection, origins

    split = origins.find(connection.connect(), uris[0]).split()
    _train(experiment_files.override(config, split), register)


@fields_command("baseline")
@click.pass_context
def baseline(ctx: click.Context) -> None:
    """Run the naive guess, logistic regression and the smallest network."""
    config = load_experiment("baseline", ctx.args)
    client, data, config = connect(config)
    from fmnist_exp import console, tracking
    from fmnist_exp.baseline import run_baselines

    with tracking.closing(start_run(client, "baseline", config)) as run:
        outcomes = run_baselines(config, data, run, console.RunDisplay)
    console.show_outcomes(outcomes)
    console.console.print(f"run {run.id}; compare runs with: {ui_command()}")


def _train(config: ExperimentConfig, register: bool) -> None:
    client, data, config = connect(config)
    from fmnist_exp import console, gate, tracking
    from fmnist_exp.experiment import run_experiment

    registration = None
    with tracking.closing(start_run(client, "train", config)) as run:
        with console.RunDisplay(config.name, config.training.epochs) as display:
            outcome = run_experiment(config, data, run, [display], score_test=True)
        console.show_outcomes({config.name: outcome})
        if register:
            registration = gate.enter(outcome.model_id, run.id, outcome.tags(run, data), run, config)
    if registration:
        console.show_registration(registration)
    console.console.print(f"run {run.id}; compare runs with: {ui_command()}")


COMMANDS = (main, train, baseline, mlp, cnn, ensemble)
