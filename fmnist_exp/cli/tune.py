"""The entry point tune, and the command certificates for the clusters it may use."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from fmnist_exp.backend import loading
from fmnist_exp.cli.options import FieldsCommand, load_experiment, offline
from fmnist_exp.tracking import escape
from fmnist_exp.tracking.redact import shell_command

if TYPE_CHECKING:
    from fmnist_exp.tuning.search import SearchRequest


@click.command("tune", cls=FieldsCommand)
@click.option(
    "--experiment",
    default="tune_cnn",
    show_default=True,
    help="Experiment with a search: a path or a name in experiments/.",
)
@click.option("--n_trials", help="Number of finished trials of the study; short for --search.n_trials.")
@click.option("--timeout", help="Minutes after which no trial continues; short for --search.timeout.")
@click.option(
    "--study",
    help="Name of the study; an existing study is resumed. To resume a killed search, run the same command again: the"
    " default is the study of the same search whose driver was killed, or a new study.",
)
@click.option(
    "--storage",
    envvar="FMNIST_EXP_STORAGE",
    default="sqlite:///studies.db",
    show_default=True,
    help="Address of the studies' database, as SQLAlchemy writes it. If it has a password, set FMNIST_EXP_STORAGE"
    " instead, since other users of the machine can read options in the list of processes.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    help="Number of trials at once. Default: one per core, or one per worker of the scheduler.",
)
@click.option(
    "--scheduler", help="Address of a running Dask scheduler, tls://… or tcp://…, whose workers run the trials."
)
@offline
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
    offline: bool,
) -> None:
    """Search dropout, L2, learning rate and layer widths; register the best model."""
    budget = {"search.n_trials": n_trials, "search.timeout": timeout}
    config = load_experiment(experiment, ctx.args, budget, offline=offline)
    from fmnist_exp.tuning import checks
    from fmnist_exp.tuning.workers import local

    checks.check(config)
    run_id = os.environ.pop("MLFLOW_RUN_ID", None)  # child processes must not write into this run
    with nullcontext() if scheduler else local.starting(workers) as local_workers:
        loading.load_keras()  # for seconds, in which the workers do the same
        from fmnist_exp.tuning.search import SearchRequest

        request = SearchRequest(
            config=config,
            study=study,
            storage=storage,
            workers=workers,
            local_workers=local_workers,
            scheduler=scheduler,
            offline=offline,
            run_id=run_id,
        )
        _search(ctx, request)


def _search(ctx: click.Context, request: SearchRequest) -> None:
    """Run a search and show its result."""
    from fmnist_exp.cli import display, search_display
    from fmnist_exp.tuning import search

    with search_display.SearchDisplay() as shown:
        try:
            result = search.run(replace(request, callback=shown))
        except (Exception, KeyboardInterrupt):  # whatever ends a search, the study can be resumed
            if shown.study:
                click.echo(f"to continue: {_resume_command(ctx, shown.study)}")
            raise
    search_display.show_search(result)
    if result.registration is not None:
        display.show_registration(result.registration, result.tested)
    if result.status == "interrupted":
        click.echo(f"to continue: {_resume_command(ctx, result.study)}")
        raise click.Abort
    display.show_run(result.run_id)


def _resume_command(ctx: click.Context, study: str) -> str:
    """Return the command that resumes the study, without secrets and without options that the environment sets."""
    words = ["fmnist-exp", "tune"]
    for name, value in ctx.params.items():
        if name != "study" and ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            words += [f"--{name}", str(value)]
    return escape.line(shell_command([*words, *ctx.args, "--study", study]))


@click.command("certificates")
@click.option(
    "--file",
    type=click.Path(path_type=Path, resolve_path=True),
    default="dask-tls.yaml",
    show_default=True,
    help="File to write. DASK_CONFIG names it for the scheduler, the workers and tune.",
)
def certificates(file: Path) -> None:
    """Write the file that lets a Dask scheduler, its workers and tune talk over TLS, valid for a year."""
    from fmnist_exp.tuning.workers import certificates as library

    library.write(file)
    click.echo(f"wrote {file}; copy it to every machine of the cluster and set DASK_CONFIG to its path there")


COMMANDS = (tune, certificates)
