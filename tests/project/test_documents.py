"""Tests of the documents: their commands exist and parse, and their Python examples run."""

import importlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

import click
import mlflow
import pytest
import yaml
from click.testing import CliRunner
from support.documents import ROOT, Example, commands, examples, read

from fmnist_exp.cli import main
from fmnist_exp.cli.options import FieldsCommand, parse_fields
from fmnist_exp.config import files
from fmnist_exp.config.fields import fields

ENTRY_POINTS = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
EXAMPLES = examples()
COMMANDS = {" ".join(words): words for example in EXAMPLES for words in commands(example)}
OUTSIDE = ("RUN_ID", "models:/", "NAME")  # parts of values that only a tracking store can check


def check(words: Sequence[str]) -> None:
    """Check that a command exists and accepts its options and fields; nothing runs."""
    match words:
        case ["fmnist-exp", "--help"]:
            assert CliRunner().invoke(main, ["--help"]).exit_code == 0
        case ["fmnist-exp", name, *options] | ["python", "-m", "fmnist_exp", name, *options]:
            check_entry_point(name, options)
        case ["mlflow", "run", ".", *options]:
            check_project_run(options)
        case ["make", *targets]:
            done = subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        case ["python", "-m", module, *options] if module.startswith("benchmarks."):
            _, rest = importlib.import_module(module).parser().parse_known_args(options)
            parse_fields(rest)
        case ["python", "-m", "pytest", *paths]:
            assert all((ROOT / path).exists() for path in paths)
        case ["python", script, *_] if script != "-m":
            assert (ROOT / script).is_file()
        case _:
            pytest.fail(f"no check for {words}")


def check_entry_point(name: str, options: Sequence[str]) -> None:
    """Parse the options as the command does, and validate the fields and the experiment with them."""
    command = main.commands[name]
    if "--help" in options:
        assert CliRunner().invoke(main, [name, *options]).exit_code == 0
        return
    context = command.make_context(name, list(options), parent=click.Context(main), resilient_parsing=False)
    short = context.params.items() if isinstance(command, FieldsCommand) else ()
    known = {f"search.{key}": value for key, value in short if f"search.{key}" in fields()}
    overrides = parse_fields(context.args) | {key: value for key, value in known.items() if value is not None}
    reference = context.params.get("experiment") or (name if (ROOT / f"experiments/{name}.yaml").exists() else "cnn")
    if not any(part in reference for part in OUTSIDE) and not reference.endswith("my_model.yaml"):
        files.load(reference, overrides)


def check_project_run(options: Sequence[str]) -> None:
    """Parse the options of `mlflow run` as it does, and check what it hands to the entry point."""
    importlib.import_module("mlflow.cli")
    context = mlflow.cli.cli.commands["run"].make_context("run", [".", *options])
    entry = context.params["entry_point"]
    assert entry in ENTRY_POINTS
    declared = ENTRY_POINTS[entry].get("parameters", {})
    defaults = {key: value["default"] for key, value in declared.items() if "default" in value}
    given = defaults | dict(pair.split("=", 1) for pair in context.params["param_list"])
    place = [given.pop("run_id")] if "run_id" in declared else []
    check_entry_point(entry, [*place, *(word for key, value in given.items() for word in (f"--{key}", value))])


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
def test_a_command_of_the_documents_exists_and_parses(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    check(COMMANDS[command])


def test_the_readme_names_the_first_commands() -> None:
    """The collector would otherwise pass if it found nothing."""
    readme = [words for example in EXAMPLES if example.page == "README.md" for words in commands(example)]
    assert {"make", "mlflow", "fmnist-exp"} <= {words[0] for words in readme}
    assert ["make", "tune"] in readme
    assert any(example.kind == "python" for example in EXAMPLES)


@pytest.mark.parametrize(
    "wrong",
    [
        ["fmnist-exp", "trian"],
        ["fmnist-exp", "cnn", "--training.epoch", "3"],
        ["fmnist-exp", "tune", "--n_trials", "none"],
        ["fmnist-exp", "train", "--experiment", "unknown"],
        ["mlflow", "run", ".", "-e", "cnn", "-P", "training.epochs=0"],
        ["mlflow", "run", ".", "--env-manger", "uv"],
        ["make", "tset"],
        ["python", "-m", "benchmarks.unknown"],
        ["python", "-m", "benchmarks.systems", "--tabel"],
    ],
    ids=" ".join,
)
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
def test_a_wrong_command_would_be_noticed(wrong: list[str]) -> None:
    with pytest.raises((Exception, SystemExit)):
        check(wrong)


def test_blocks_in_lists_and_marked_blocks_are_found() -> None:
    text = "1. Do\n\n       make lint  # fast\n\n<!-- not run: a server -->\n\n    make ui\n\nThen `make test`.\n"
    found = list(read(text, "page.md"))
    assert [(commands(example), example.runs) for example in found] == [
        ([["make", "lint"]], True),
        ([["make", "ui"]], False),
        ([["make", "test"]], True),
    ]


PYTHON = [example for example in EXAMPLES if example.kind == "python" and example.runs]


@pytest.mark.parametrize("example", PYTHON, ids=str)
def test_a_python_example_runs(example: Example, registered, small, monkeypatch: pytest.MonkeyPatch) -> None:
    """`images` stands for a user's own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registered.uri)
    monkeypatch.chdir(registered.folder)
    exec(compile(example.text, str(example), "exec"), {"images": small.test.images[:10]})


def test_make_help_lists_every_target() -> None:
    printed = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    phony = next(line for line in Path(ROOT, "Makefile").read_text().splitlines() if line.startswith(".PHONY:"))
    assert {line.split()[1] for line in printed.splitlines()} == set(phony.removeprefix(".PHONY:").split())
