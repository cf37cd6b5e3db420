"""The command line: arguments to one call, then what came of it. Heavy imports wait for a checked request."""

from __future__ import annotations

import datetime
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click

from fmnist_exp import experiment_files, models
from fmnist_exp.config import ExperimentConfig, fields
from fmnist_exp.errors import RequestError, WorkError

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from fmnist_exp.data import FashionMNIST

DONE, WORK_FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130

# fields are not declared one by one: unknown options reach the schema, which knows their names, ranges and units
FIELDS_PASS = {"ignore_unknown_options": True, "allow_extra_args": True}


class Entry(click.Command):
    """A command that takes every field of the experiment as an option; its help lists them with units and ranges."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: D102
        with formatter.section(
            "Fields of the experiment, each an option --NAME VALUE (the file's value is the default)"
        ):
            rows = [
                (f"--{name}", _help(name)) for name in fields() if self.name == "tune" or not name.startswith("search.")
            ]
            formatter.write_dl(rows)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train, tune, compare and register Fashion-MNIST classifiers. The same entry points work with `mlflow run`."""


def _entry(name: str) -> Callable[[Callable[..., None]], click.Command]:
    return main.command(name, cls=Entry, context_settings=FIELDS_PASS)


def _train(ctx: click.Context, experiment: str) -> None:
    from fmnist_exp import console, tracking
    from fmnist_exp.experiment import run_experiment

    config, client, data = _prepare(experiment, ctx.args)
    with (
        tracking.closing(_start(client, "train", config)) as run,
        console.RunDisplay(config.training.epochs) as display,
    ):
        outcome = run_experiment(config, data, run, [display], score_test=True)
    assert outcome.test is not None
    console.show_scores([(config.name, outcome.parameters, outcome.validation.accuracy, outcome.test.accuracy)])
    _show_run(outcome.run_id)


@_entry("main")
@click.option("--experiment", default="cnn", help="A path, a name in experiments/, or runs:/RUN_ID/experiment.yaml.")
@click.pass_context
def _main(ctx: click.Context, experiment: str) -> None:
    """Run one experiment (the same as train)."""
    _train(ctx, experiment)


@_entry("train")
@click.option("--experiment", default="cnn", help="A path, a name in experiments/, or runs:/RUN_ID/experiment.yaml.")
@click.pass_context
def train(ctx: click.Context, experiment: str) -> None:
    """Run one experiment."""
    _train(ctx, experiment)


@_entry("mlp")
@click.pass_context
def mlp(ctx: click.Context) -> None:
    """Run experiments/mlp.yaml, the best MLP."""
    _train(ctx, "mlp")


@_entry("cnn")
@click.pass_context
def cnn(ctx: click.Context) -> None:
    """Run experiments/cnn.yaml, the best CNN."""
    _train(ctx, "cnn")


@_entry("baseline")
@click.pass_context
def baseline(ctx: click.Context) -> None:
    """Run the naive guess, logistic regression and the smallest network."""
    from fmnist_exp import console, tracking
    from fmnist_exp.baseline import run_baselines

    config, client, data = _prepare("baseline", ctx.args)
    with (
        tracking.closing(_start(client, "baseline", config)) as run,
        console.RunDisplay(config.training.epochs) as display,
    ):
        outcomes = run_baselines(config, data, run, [display])
    console.show_scores(
        [(name, o.parameters, o.validation.accuracy, o.test.accuracy) for name, o in outcomes.items() if o.test]
    )
    _show_run(run.id)


@_entry("tune")
@click.option("--experiment", default="tune_cnn", help="An experiment with a search: a path or a name in experiments/.")
@click.option("--n_trials", help="Finished trials of the study [search.n_trials].")
@click.option("--timeout", help="Minutes after which no trial goes on [search.timeout].")
@click.option("--study", help="Name of the study; the same name continues it. Default: a new one.")
@click.option(
    "--storage",
    envvar="FMNIST_EXP_STORAGE",
    default="sqlite:///studies.db",
    show_default=True,
    help="Database of the studies, as an SQLAlchemy address; FMNIST_EXP_STORAGE keeps a password out of the log.",
)
@click.pass_context
def tune(
    ctx: click.Context, experiment: str, n_trials: str | None, timeout: str | None, study: str | None, storage: str
) -> None:
    """Search dropout, L2, learning rate and layer widths; register the best model."""
    short = {"search.n_trials": n_trials, "search.timeout": timeout}
    config = _load(experiment, ctx.args, {name: value for name, value in short.items() if value is not None})
    _check_search(config)
    client, data = _connect(config)
    from fmnist_exp import console, tracking
    from fmnist_exp.tuning.loop import tune as search
    from fmnist_exp.tuning.study import open_study

    name = study or f"{config.name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    opened = open_study(config, name, storage)
    console.console.print(f"study {name}: at most {config.search.n_trials} trials, {config.search.timeout:g} minutes")  # type: ignore[union-attr]
    with tracking.closing(_start(client, "tune", config)) as run, console.SearchDisplay() as display:
        result = search(config, data, opened, run, display)
    console.show_search(result)
    if result.registration is None:
        console.console.print(f"interrupted; to continue: fmnist-exp tune --experiment {experiment} --study {name}")
        raise KeyboardInterrupt
    _show_version(result)


def _load(experiment: str, arguments: Sequence[str], short: dict[str, str]) -> ExperimentConfig:
    """Read and check a request, all of it that needs no data and no heavy library."""
    overrides = {**_overrides(arguments), **short}
    if experiment.startswith("runs:/"):
        from fmnist_exp.tracking import download_text

        config = experiment_files.parse(download_text(experiment), experiment, overrides)
    else:
        config = experiment_files.load(experiment, overrides)
    models.check(config.model)
    return config


def _check_search(config: ExperimentConfig) -> None:
    from fmnist_exp.tuning import space

    space.check(config)


def _prepare(experiment: str, arguments: Sequence[str]) -> tuple[ExperimentConfig, MlflowClient, FashionMNIST]:
    config = _load(experiment, arguments, {})
    client, data = _connect(config)
    return config, client, data


def _connect(config: ExperimentConfig) -> tuple[MlflowClient, FashionMNIST]:
    """Reach the tracking store and load the data; both may refuse the request before anything is written."""
    from fmnist_exp import data, experiment, tracking

    client = tracking.connect()
    loaded = data.load(config.data, config.seed)
    experiment.check(config, loaded)
    return client, loaded


def _start(client: MlflowClient, kind: Any, config: ExperimentConfig) -> Any:
    from fmnist_exp import tracking

    return tracking.start_run(client, kind, config.name, config.name, run_id=os.environ.pop("MLFLOW_RUN_ID", None))


def _overrides(arguments: Sequence[str]) -> dict[str, str]:
    """`--a.b value` and `--a.b=value` as {"a.b": "value"}. Raises RequestError for anything else."""
    overrides: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        option = rest.pop(0)
        if not option.startswith("--"):
            raise RequestError(f"unexpected argument {option!r}; fields are given as --training.epochs 3")
        name, equals, value = option[2:].partition("=")
        if not equals and (not rest or name not in fields()):
            if name not in fields():
                raise experiment_files.unknown_field(name)
            raise RequestError(f"--{name} needs a value")
        overrides[name] = value if equals else rest.pop(0)
    return overrides


def _help(name: str) -> str:
    field = fields()[name]
    allowed = experiment_files.allowed(name)
    return f"{field.description} [{allowed}]" if allowed else str(field.description)


def _show_run(run_id: str) -> None:
    from fmnist_exp.console import console

    console.print(f"run {run_id}; compare runs with: {_ui_command()}")


def _show_version(result: Any) -> None:
    from fmnist_exp.console import console
    from fmnist_exp.registry import NAME

    version = result.registration.version
    champion = "challenger and champion" if result.registration.champion else "challenger; the champion stays"
    console.print(f"registered {NAME} version {version} ({champion}); test accuracy {result.test_accuracy:.2%}")
    console.print(f"look:  {_ui_command()}")
    console.print(f"serve: mlflow models serve -m models:/{NAME}/{version} --env-manager local --port 8080")


def _ui_command() -> str:
    import mlflow

    uri = mlflow.get_tracking_uri()
    return f"mlflow ui --backend-store-uri {uri}" if uri.startswith("sqlite:") else uri


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the documented code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how `mlflow run` passes Ctrl-C on
    try:
        main.main(args=arguments, standalone_mode=False)
        code = DONE
    except click.exceptions.Exit as done:
        code = done.exit_code
    except click.ClickException as error:
        code = _fail(error.format_message(), WRONG_REQUEST)
    except RequestError as error:
        code = _fail(str(error), WRONG_REQUEST)
    except WorkError as error:
        code = _fail(str(error), WORK_FAILED)
    except (KeyboardInterrupt, click.Abort):
        code = _fail("interrupted", INTERRUPTED)
    sys.exit(code)


def _fail(message: str, code: int) -> int:
    click.echo(f"fmnist-exp: {message}", err=True)
    return code
