"""The options of commands, the experiment that they describe, and the help of its fields."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence

import click
import pydantic_core

from fmnist_exp import models
from fmnist_exp.config import fields as schema_fields
from fmnist_exp.config import files
from fmnist_exp.config.fields import FieldHelp, fields
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.errors import RequestError

SEARCH_SECTIONS = ("search", "final", "gate")  # only tune's help shows them


class FieldsCommand(click.Command):
    """A command that takes every field of the experiment as an option; its help lists the fields that have an effect.

    The fields are not declared one by one: unknown options are passed to the schema, which has the names, ranges and
    units.
    """

    allow_extra_args = True
    ignore_unknown_options = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and keep them for the help, which shows the experiment that they describe."""
        ctx.obj = [word for word in args if word not in ctx.help_option_names]
        return super().parse_args(ctx, args)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: D102
        config = self._experiment(ctx)
        listed = [field for field in schema_fields.describe(config) if self._has_effect(field, config)]
        listed.sort(key=lambda field: bool(field.section))  # first what belongs to no section
        formatter.write_paragraph()
        formatter.write_text(
            f"Fields of the experiment {config.name!r} (--NAME VALUE), with their values, a description and the"
            " possible values:"
        )
        for section, group in itertools.groupby(listed, key=lambda field: field.section.partition(".")[0]):
            with formatter.section((section or "experiment").capitalize()):
                formatter.write_dl([(f"--{field.name} {_text(field.value)}", _description(field)) for field in group])

    def _experiment(self, ctx: click.Context) -> ExperimentConfig:
        """Return the experiment that the command would run, with the fields that were given together with --help."""
        parser = self.make_parser(ctx)
        given, rest, _ = parser.parse_args(list(ctx.obj))
        default = next((option.default for option in self.params if option.name == "experiment"), self.name)
        reference = str(given.get("experiment", default))
        if reference.startswith("runs:/") or self.name == "ensemble":  # which would need the tracking store
            return files.override(ExperimentConfig(), parse_fields(rest))
        return load_experiment(reference, rest)

    def _has_effect(self, field: FieldHelp, config: ExperimentConfig) -> bool:
        section, _, name = field.name.partition(".")
        if section == "model":
            return name in models.used_fields(config.model.family)
        return section not in SEARCH_SECTIONS or self.name == "tune"


def switch(name: str, text: str, default: str | None = "false") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return an option that works without a value and, for `mlflow run -P name=true`, also with one."""
    kind = click.BOOL
    return click.option(name, is_flag=False, flag_value="true", default=default, type=kind, metavar="[BOOL]", help=text)


offline = switch(
    "--offline",
    "Send nothing to the tracking store and ask it nothing: runs, models and versions stay in the folder spool/, or"
    " FMNIST_EXP_SPOOL, until `fmnist-exp sync` sends them.",
)


def load_experiment(
    reference: str, arguments: Sequence[str], short: Mapping[str, str | None] | None = None, *, offline: bool = False
) -> ExperimentConfig:
    """Return the experiment of a request, after all checks that need neither data nor a heavy library.

    Args:
        reference: a path, a name in experiments/, or runs:/RUN_ID/experiment.yaml.
        arguments: fields as `--a.b value` or `--a.b=value`.
        short: fields that have an option of their own, with None for those that were not given.
        offline: refuse an experiment that only the tracking store has.

    Raises:
        RequestError: the experiment does not exist, or a field is unknown or has a wrong value.
    """
    overrides = {**parse_fields(arguments), **given(short or {})}
    if reference.startswith("runs:/"):
        if offline:
            raise RequestError(f"--offline cannot read {reference} from the tracking store; name a file")
        from fmnist_exp.tracking.store import download_text  # imports MLflow, which most requests need later

        config = files.parse_logged(download_text(reference), reference, overrides)
    else:
        config = files.load(reference, overrides)
    models.check(config.model)
    return config


def given(options: Mapping[str, str | None]) -> dict[str, str]:
    """Return the options that the user gave."""
    return {name: value for name, value in options.items() if value is not None}


def parse_fields(arguments: Sequence[str]) -> dict[str, str]:
    """Return `--a.b value` and `--a.b=value` as {"a.b": "value"}. Raise RequestError for anything else."""
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


def _text(value: object) -> str:
    """Return a field's value as the command line takes it: YAML on one line, an empty value as `null`."""
    plain = pydantic_core.to_jsonable_python(value, exclude_none=True)
    return json.dumps(plain).replace('"', "")


def _description(field: FieldHelp) -> str:
    # the schema does not know the families
    allowed = f"one of {', '.join(models.FAMILIES)}" if field.name == "model.family" else field.allowed
    return f"{field.description} [{allowed}]" if allowed else field.description
