"""From arguments to a checked request: the experiment, the tracking store and the data."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import click

from fmnist_exp import models
from fmnist_exp.backend import loading
from fmnist_exp.config import files
from fmnist_exp.config.fields import allowed, fields
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.errors import RequestError

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from fmnist_exp.data.dataset import FashionMNIST
    from fmnist_exp.experiment.resolve import Resolved
    from fmnist_exp.tracking.names import Kind
    from fmnist_exp.tracking.run import Run


class FieldsCommand(click.Command):
    """A command that takes every field of the experiment as an option; its help lists them with units and ranges."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: D102
        searched = self.name == "tune"
        rows = [
            (f"--{name}", _help(name)) for name in fields() if searched or not name.startswith(("search.", "gate."))
        ]
        with formatter.section("Fields of the experiment, as --NAME VALUE; what is not given stays as in its file"):
            formatter.write_dl(rows)


def fields_command(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """Decorator: a command whose options, beside those declared, are the fields of the experiment.

    The fields are not declared one by one: unknown options reach the schema, which knows names, ranges and units.
    """
    passing = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.command(name, cls=FieldsCommand, context_settings=passing)


def switch(name: str, text: str, default: str = "false") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """An option that `mlflow run -P name=true` can give as well, which hands every parameter a value."""
    kind = click.BOOL
    return click.option(name, is_flag=False, flag_value="true", default=default, type=kind, metavar="[BOOL]", help=text)


def load_experiment(
    reference: str, arguments: Sequence[str], short: Mapping[str, str | None] | None = None
) -> ExperimentConfig:
    """Read and check a request, all of it that needs no data and no heavy library.

    Args:
        reference: a path, a name in experiments/, or runs:/RUN_ID/experiment.yaml.
        arguments: fields as `--a.b value` or `--a.b=value`.
        short: fields that have an option of their own; None where it was not given.

    Raises:
        RequestError: any of it is wrong.
    """
    given = {name: value for name, value in (short or {}).items() if value is not None}
    overrides = {**parse_fields(arguments), **given}
    if reference.startswith("runs:/"):
        from fmnist_exp.tracking.store import download_text

        config = files.parse(download_text(reference), reference, overrides)
    else:
        config = files.load(reference, overrides)
    models.check(config.model)
    return config


def connect(config: ExperimentConfig) -> tuple[FashionMNIST, Resolved]:
    """Load the data, and check and complete the experiment, before anything is written."""
    loading.load_keras()
    from fmnist_exp.data import dataset
    from fmnist_exp.experiment.resolve import resolve

    loaded = dataset.load(config.data, config.seed)
    return loaded, resolve(config, loaded)


def start_run(
    client: MlflowClient, kind: Kind, config: ExperimentConfig, more_tags: Mapping[str, str] | None = None
) -> Run:
    """Start the command's run, or take over the one that `mlflow run` made for it."""
    from fmnist_exp.tracking import run as runs

    # taken out of the environment: child processes must not write into this run
    run_id = os.environ.pop("MLFLOW_RUN_ID", None)
    return runs.start_run(client, kind, config.name, config.name, run_id=run_id, more_tags=more_tags)


def parse_fields(arguments: Sequence[str]) -> dict[str, str]:
    """`--a.b value` and `--a.b=value` as {"a.b": "value"}. Raises RequestError for anything else."""
    overrides: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        option = rest.pop(0)
        if not option.startswith("--"):
            raise RequestError(f"unexpected argument {option!r}; fields are given as --training.epochs 3")
        name, equals, value = option[2:].partition("=")
        if name not in fields():
            raise files.unknown_field(name)
        if not equals and not rest:
            raise RequestError(f"--{name} needs a value")
        overrides[name] = value if equals else rest.pop(0)
    return overrides


def ui_command() -> str:
    """How to look at this tracking store: a command, or the server's address."""
    import mlflow

    from fmnist_exp.tracking.redact import without_secrets

    uri = without_secrets(mlflow.get_tracking_uri())
    return uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"


def _help(name: str) -> str:
    field = fields()[name]
    families = f"one of {', '.join(models.FAMILIES)}"  # the schema does not know the families
    values = families if name == "model.family" else allowed(name)
    return f"{field.description} [{values}]" if values else str(field.description)
