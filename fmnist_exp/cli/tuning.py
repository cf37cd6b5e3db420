"""The entry point tune."""

from __future__ import annotations

import datetime

import click

from fmnist_exp.cli.request import connect, fields_command, load_experiment, start_run, ui_command


@fields_command("tune")
@click.option(
    "--experiment",
    default="tune_cnn",
    show_default=True,
    help="An experiment with a search: a path or a name in experiments/.",
)
@click.option("--n_trials", help="Finished trials of the study; short for --search.n_trials.")
@click.option("--timeout", help="Minutes after which no trial goes on; short for --search.timeout.")
@click.option("--study", help="Name of the study; the same name continues it. Default: a new one.")
@click.option(
    "--storage",
    envvar="FMNIST_EXP_STORAGE",
    default="sqlite:///studies.db",
    show_default=True,
    help="Database of the studies, as SQLAlchemy writes it; in FMNIST_EXP_STORAGE a password stays out of the logs.",
)
@click.pass_context
def tune(
    ctx: click.Context, experiment: str, n_trials: str | None, timeout: str | None, study: str | None, storage: str
) -> None:
    """Search dropout, L2, learning rate and layer widths; register the best model."""
    config = load_experiment(experiment, ctx.args, {"search.n_trials": n_trials, "search.timeout": timeout})
    from fmnist_exp.tuning import space

    space.check(config)
    search = space.search_of(config)
    client, data, config = connect(config, space.check_data)
    from fmnist_exp import console, tracking
    from fmnist_exp.tuning.loop import tune as run_search
    from fmnist_exp.tuning.study import open_study

    opened = open_study(config, study or f"{config.name}-{datetime.datetime.now():%Y%m%d-%H%M%S}", storage)
    console.console.print(f"study {opened.study_name}: {search.n_trials} trials, {search.timeout:g} minutes at most")
    with tracking.closing(start_run(client, "tune", config)) as run, console.SearchDisplay() as display:
        result = run_search(config, data, opened, run, display)
    console.show_search(result)
    if result.registration is None or result.test_accuracy is None:
        name = opened.study_name
        console.console.print(f"to continue: fmnist-exp tune --experiment {experiment} --study {name}")
        raise KeyboardInterrupt
    console.show_registration(result.registration, result.test_accuracy)
    console.console.print(f"look:  {ui_command()}")


COMMANDS = (tune,)
