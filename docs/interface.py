"""Write docs/interface.md from the code: `python docs/interface.py`. A test compares the two."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from fmnist_exp.cli import EXIT_CODES, main
from fmnist_exp.config.fields import describe
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.models import FAMILIES, used_fields
from fmnist_exp.serving.app import Application
from fmnist_exp.serving.hosts import Hosts
from fmnist_exp.serving.limits import Limits
from fmnist_exp.tracking import names

PAGE = Path(__file__).with_suffix(".md")

SECTIONS = {
    "": "The experiment",
    "data": "`data`: where the images come from, and how they are split",
    "model": "`model`: the network",
    "training": "`training`: how the network is fitted",
    "augmentation": "`augmentation`: how training images change",
    "search": "`search`: what a search varies, and what it may cost",
    "gate": "`gate`: what a challenger must show to become champion",
}


def page() -> str:
    """Return the whole page as Markdown."""
    parts = [
        "# Interface",
        "This page lists what users may rely on. A change of anything here is a breaking change and needs a line in the"
        " [changelog](../CHANGELOG.md) with the reason. `python docs/interface.py` writes this page from the code, and"
        " a test compares the two.",
        *entry_points(),
        *field_tables(),
        *runs(),
        *versions(),
        "## HTTP routes of `serve`",
        "The server listens on port 8080 of the loopback address unless you say otherwise. Errors are JSON with"
        " `error_code` and `message`, as MLflow writes them. Any other route is answered with status 404, and a request"
        " whose Host is not a name of the server with 403.",
        table(("route", "answer"), routes()),
        "## Exit codes",
        table(("code", "meaning"), ((str(code), meaning) for code, meaning in EXIT_CODES.items())),
        "## Environment variables",
        table(("variable", "meaning"), VARIABLES),
    ]
    return "\n\n".join(parts) + "\n"


def routes() -> list[tuple[str, str]]:
    """Return the routes of the server and what each answers."""
    routes = Application(Limits(), Hosts()).routes.items()
    return [(f"`{method} {path}`", str(handler.__doc__)) for path, (method, handler) in routes]


VARIABLES = (
    ("`MLFLOW_TRACKING_URI`", "Address of the tracking store. Default: `sqlite:///mlflow.db` in the current folder."),
    ("`MLFLOW_EXPERIMENT_NAME`", "MLflow experiment of the runs. Default: `Default`."),
    ("`FMNIST_EXP_STORAGE`", "Database of the studies, the same as `tune --storage`."),
    ("`FMNIST_EXP_CACHE`", "Folder of the cached images. Default: `fmnist_exp` in the user's cache folder."),
    ("`FMNIST_EXP_SPOOL`", "Folder of what is not in the tracking store yet. Default: `spool` in the current folder."),
    (
        "`FMNIST_EXP_SEND_SECONDS`",
        "Seconds after the last success for which a command waits at its end for a store that is away. Default: 60.",
    ),
    ("`FMNIST_EXP_SIGNING_KEY`", "PEM file with the Ed25519 private key that signs the models that are logged."),
    ("`FMNIST_EXP_TRUSTED_KEYS`", "PEM file with public keys; models that none of them has signed are not loaded."),
    ("`DASK_CONFIG`", "Dask's settings: for `tls://` schedulers, the file that `fmnist-exp certificates` wrote."),
    ("`FMNIST_EXP_DEBUG`", "`true` shows the traceback of every error, the same as `--debug`; workers obey it too."),
    ("`KERAS_BACKEND`", "`tensorflow`, which is the default, or `jax`."),
    ("`TF_ENABLE_ONEDNN_OPTS`", "`0` makes TensorFlow compute without oneDNN. Default on x86 processors: `1`."),
    ("`MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`", "`false` turns off the CPU and memory metrics of runs."),
)


def entry_points() -> list[str]:
    """Return the section on commands: a table of all, and one of each command's own options."""
    commands = sorted(main.commands.items())
    rows = [(f"`{name}`", str(command.help)) for name, command in commands]
    options = [
        (f"`{name}`", f"`{option.opts[0]}`", default(option), str(option.help))
        for name, command in commands
        for option in command.params
        if isinstance(option, click.Option)
    ]
    return [
        "## Entry points",
        "Each entry point is `mlflow run . -e NAME`, `fmnist-exp NAME` and `python -m fmnist_exp NAME`. An option"
        " `--a value` is `-P a=value` in `mlflow run`. `certificates`, `clean` and `sync` make no runs, so"
        " they are commands only.",
        table(("entry point", "what it does"), rows),
        table(("entry point", "option", "default", "meaning"), options),
    ]


def default(option: click.Option) -> str:
    """Return the default of an option as a cell, empty if there is none."""
    value = option.to_info_dict()["default"]
    return f"`{value}`" if isinstance(value, str | int | float) else ""


def field_tables() -> list[str]:
    """Return the section on the fields of an experiment, one table for each part of it."""
    parts = [
        "## Fields of an experiment",
        "Every field can be set in an experiment file, as `--NAME VALUE` on the command line, and as `-P NAME=VALUE` in"
        " `mlflow run`. An unknown name or a value out of range ends the command with exit code 2 before anything is"
        " written.",
    ]
    for section, title in SECTIONS.items():
        own = [field for field in describe(ExperimentConfig()) if field.section == section]
        rows = [
            (f"`{field.name}`", shown(field.value), field.allowed, field.description, *families(field.name))
            for field in own
        ]
        head = ("field", "default", "range", "meaning", *(["families"] if section == "model" else []))
        parts += [f"### {title}", table(head, rows)]
    return parts


def families(name: str) -> list[str]:
    """Return the families that use a field of the model, as a cell."""
    if not name.startswith("model."):
        return []
    users = [family for family in FAMILIES if name.removeprefix("model.") in used_fields(family)]
    return ["all" if len(users) == len(FAMILIES) else ", ".join(users)]


def shown(value: object) -> str:
    """Return a default as a cell: YAML's spelling, empty for none."""
    if value is None or "Undefined" in type(value).__name__:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{list(value)}`" if isinstance(value, tuple) else f"`{value}`"


def runs() -> list[str]:
    """Return the section on what a run carries in MLflow."""
    return [
        "## A run in MLflow",
        "A search is a parent run with one child run for each trial. MLflow's status of a trial is FINISHED if it is"
        " complete, KILLED if it was pruned, and FAILED if it failed. Every run logs its datasets with name, source and"
        " digest. Its model is logged as `model`, with the signature uint8 images (-1, 28, 28), an input example and"
        " locked requirements.",
        "### Tags",
        named(names.Tag),
        "### Params",
        "Every field of the experiment is a param under its dotted name. Beside them there are:",
        named(names.Param),
        "### Metrics",
        "Metrics per epoch have the steps 1, 2, …",
        named(names.Metric),
        "### Artifacts",
        named(names.Artifact),
        "### Models that a run logs",
        named(names.ModelName),
        "### Tags of the MLflow experiment and of logged models",
        named(names.ExperimentTag),
        named(names.LoggedModelTag),
    ]


def versions() -> list[str]:
    """Return the section on the registered model."""
    return [
        "## The registered model `fashion-mnist`",
        "Each search registers one version. The alias `challenger` points to the newest version, and `champion` to the"
        " one that passed the gate. `mlflow.keras.load_model` returns the Keras model."
        " `mlflow.pyfunc.load_model(…).predict(images)` takes uint8 or float images (N, 28, 28) or (N, 28, 28, 1) in"
        " 0…255 and returns a table with one row for each image: `label`, `name`, `probability`, and `p0` … `p9`.",
        "### Tags of a version",
        named(names.VersionTag),
        "### Tags of the registered model",
        named(names.ModelTag),
    ]


def named(kind: type[names.Name]) -> str:
    """Return the table of one kind of names."""
    return table(("name", "meaning"), ((f"`{name}`", name.meaning) for name in kind))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
