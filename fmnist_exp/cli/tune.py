"""The entry point tune."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from fmnist_exp.backend import loading
from fmnist_exp.cli.options import connect, fields_command, load_experiment, start_run, ui_command
from fmnist_exp.errors import WorkError

if TYPE_CHECKING:
    from fmnist_exp.config.schema import ExperimentConfig


@fields_command("tune")
@click.option(
    "--experiment",
    default="tune_cnn",
    show_default=True,
    help="An experiment with a search: a path or a name in experiments/.",
)
@click.option("--n_trials", help="Finished trials of the study; short for --search.n_trials.")
@click.option("--timeout", help="Minutes after which no trial goes on; short for --search.timeout.")
@click.option(
    "--study", help="Name of the study; the same name continues it. Default: the one that a kill left, or new."
)
@click.option(
    "--storage",
    envvar="FMNIST_EXP_STORAGE",
    default="sqlite:///studies.db",
    show_default=True,
    help="Database of the studies, as SQLAlchemy writes it; in FMNIST_EXP_STORAGE a password stays out of the logs.",
)
@click.option("--workers", type=click.IntRange(1, 1024), help="Trials at once. Default: one per core, or all workers.")
@click.option("--scheduler", help="Address of a running Dask scheduler, tcp://…, whose workers run the trials.")
@click.pass_context
def tune(
    ctx: click.Context,
    experiment: str,
    n_trials: str | None,
    timeout: str | None,
    study: str | None,
    storage: str,
    workers: int | None,
    scheduler: str | None,
) -> None:
    """Search dropout, L2, learning rate and layer widths; register the best model."""
    config = load_experiment(experiment, ctx.args, {"search.n_trials": n_trials, "search.timeout": timeout})
    loading.load_keras()
    from fmnist_exp.tuning import refit, space
    from fmnist_exp.tuning.workers import pool

    space.check(config)
    refit.check(config)
    search = space.search_of(config)
    pool.check(scheduler)
    client, data, config = connect(config, space.check_data)
    from fmnist_exp.cli import display
    from fmnist_exp.tracking import run as runs
    from fmnist_exp.tuning import objectives, recovery
    from fmnist_exp.tuning.sampling import warm_start
    from fmnist_exp.tuning.search import tune as run_search
    from fmnist_exp.tuning.study import open_study
    from fmnist_exp.tuning.workers import study_lock, trial

    name = study or _name(config, storage)

    hired = pool.hire(workers, scheduler, data, trial.place_of(config, data))
    with recovery.explaining_full_disk(name), ExitStack() as stack:
        if scheduler:  # its workers may be refused, before the lease writes; those of this machine are slow to start
            staff = stack.enter_context(hired)
        held = stack.enter_context(study_lock.hold(storage, name))
        if not scheduler:
            staff = stack.enter_context(hired)
        opened = open_study(config, name, storage)
        recovery.check(opened, client)
        display.console.print(f"study {name}: {search.n_trials} trials, {search.timeout:g} minutes at most")
        if taken := opened.user_attrs.get(warm_start.TAKEN):
            display.console.print(f"warm start: {taken} of study {search.warm_start} come first")
        if told := objectives.warning(search, staff.size):
            display.console.print(told)
        parent = start_run(client, "tune", config, {"fmnist.study": name})
        with _telling_how_to_go_on(ctx, name), runs.closing(parent) as run, display.SearchDisplay() as watcher:
            result = run_search(config, data, opened, run, watcher, crew=staff, lease=held)
    display.show_search(result)
    if result.registration is None or result.test_accuracy is None:
        click.echo(f"to continue: {_again(ctx, name)}")
        raise KeyboardInterrupt
    display.show_registration(result.registration, result.test_accuracy)
    display.console.print(f"look:  {ui_command()}")


def _name(config: ExperimentConfig, storage: str) -> str:
    """The study of this very search that a killed driver left, or a new one."""
    from fmnist_exp.cli import display
    from fmnist_exp.tuning.study import left_by_a_kill

    if left := left_by_a_kill(config, storage):
        display.console.print(f"going on with study {left}, whose driver was killed; --study NAME makes a new one")
    return left or f"{config.name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


@contextmanager
def _telling_how_to_go_on(ctx: click.Context, study: str) -> Iterator[None]:
    try:
        yield
    except WorkError:
        click.echo(f"to continue: {_again(ctx, study)}")
        raise


def _again(ctx: click.Context, study: str) -> str:
    """The command that goes on with the study. What came from the environment stays there; secrets are blanked."""
    from fmnist_exp.tracking.redact import without_secrets

    words = ["fmnist-exp", "tune"]
    for name, value in ctx.params.items():
        if name != "study" and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            words += [f"--{name}", str(value)]
    return without_secrets(shlex.join([*words, *ctx.args, "--study", study]))


COMMANDS = (tune,)
