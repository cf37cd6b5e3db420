"""The command line imports nothing heavy to answer, and refuses in one sentence with the documented exit code."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fmnist_exp import models
from fmnist_exp.backend import loading
from fmnist_exp.cli import main
from fmnist_exp.cli.options import parse_fields
from fmnist_exp.errors import RequestError

TRAINING = ["main", "train", "baseline", "mlp", "cnn", "tune"]


def fmnist_exp(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fmnist_exp", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)  # type: ignore[call-overload]


HEAVY = ("keras", "tensorflow", "jax", "mlflow", "optuna", "matplotlib", "pandas", "sklearn", "onnxruntime", "rich")


@pytest.mark.parametrize("arguments", [["--help"], ["cnn", "--help"], ["tune", "--help"], ["tune", "--n_trials", "0"]])
def test_help_and_a_wrong_argument_import_no_heavy_library(arguments):
    code = f"""
import sys
from fmnist_exp import cli
try:
    cli.run({arguments})
finally:
    print("imported:", [name for name in {HEAVY} if name in sys.modules])
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert answer.stdout.endswith("imported: []\n")


def test_what_commands_print_needs_no_library_of_a_search():
    heavy = ("keras", "optuna", "matplotlib", "onnxruntime")
    code = f"import sys, fmnist_exp.cli.display; print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert answer.stdout == "[]\n"


def help_of(*arguments: str) -> str:
    """The help on one line."""
    return " ".join(fmnist_exp(*arguments, "--help").stdout.split())


@pytest.mark.parametrize("name", TRAINING)
def test_help_lists_every_entry_point_and_its_fields(name):
    assert name in fmnist_exp("--help").stdout
    text = help_of(name)
    assert "--training.learning_rate" in text
    assert ("--search.n_trials" in text) == (name == "tune")
    assert f"one of {', '.join(models.FAMILIES)}" in text


def test_help_shows_the_values_of_the_experiment_and_the_fields_of_its_family():
    mlp = help_of("train", "--experiment", "mlp", "--training.epochs", "7")
    assert "experiment 'mlp'" in mlp
    assert "--training.epochs 7 " in mlp
    assert "--model.family mlp" in mlp
    assert "--model.widths [" in mlp
    assert "--model.kernel_size" not in mlp
    assert "--model.kernel_size 3 " in help_of("cnn")
    sections = [f" {name}: --" for name in ("Experiment", "Data", "Model", "Training", "Augmentation")]
    assert all(section in mlp for section in sections)
    assert "{model.dropout: {low: 0.0," in help_of("tune", "--experiment", "tune_mlp")


def test_help_of_an_experiment_that_does_not_exist_names_those_that_do():
    answer = fmnist_exp("train", "--experiment", "nothing", "--help")
    assert (answer.returncode, "baseline, cnn" in answer.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--training.epochz", "3"], ["'training.epochz'", "'training.epochs'"]),
        (["train", "--epochs=3"], ["'epochs'", "'training.epochs'"]),
        (["cnn", "--training.epochs", "0"], ["training.epochs", "at least 1", "at most 1000"]),
        (["cnn", "--training.precision", "float16"], ["training.precision", "one of auto, measure, float32, bfloat16"]),
        (["cnn", "--model.family", "cn"], ["model.family", "'cnn'"]),
        (["cnn", "--training.epochs"], ["--training.epochs needs a value"]),
        (["cnn", "epochs"], ["unexpected argument 'epochs'"]),
        (["train", "--experiment", "nothing"], ["'nothing'", "baseline, cnn, cnn_95, cnn_fast, deep_cnn"]),
        (["tune", "--experiment", "cnn"], ["no search", "tune_cnn"]),
        (["tune", "--n_trials", "0"], ["search.n_trials", "at least 1"]),
        (["tune", "--search.space", "{model.drop: {low: 0, high: 1}}"], ["model.drop", "did you mean"]),
        (["tune", "--search.space", "{model.dropout: {low: 0.2, high: 0.5}}"], ["model.dropout", "outside its space"]),
        (["tune", "--search.space", "{model.dropout: {low: 0, high: 2}}"], ["model.dropout", "at most 0.95"]),
        (["nothing"], ["nothing"]),
    ],
)
def test_a_wrong_request_is_one_sentence_and_exit_code_2(arguments, words, tmp_path):
    answer = fmnist_exp(*arguments, cwd=tmp_path, env=environment())
    assert answer.returncode == 2, answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert answer.stderr.startswith("fmnist-exp: ")
    for word in words:
        assert word in answer.stderr
    assert list(tmp_path.iterdir()) == []  # nothing was written


@pytest.mark.parametrize(
    "arguments",
    [
        ["cnn", "--training.batch_size", "48001"],
        ["tune", "--search.space", "{training.batch_size: {choices: [256, 48001]}}"],
    ],
)
def test_a_batch_larger_than_the_set_is_refused_before_anything_is_written(data, arguments, tmp_path):
    answer = fmnist_exp(*arguments, cwd=tmp_path, env=environment())
    assert answer.returncode == 2, answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert "training.batch_size=48001: must be at most 48000, the training images" in answer.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--search.space", "{model.kernel_size: {low: 3, high: 5}}"], "model.kernel_size changes nothing"),
        (["--scheduler", "tcp://127.0.0.1:1"], "the Dask scheduler tcp://127.0.0.1:1 does not answer"),
        (["--scheduler", "tls://127.0.0.1:1"], "this process has no certificate; set DASK_CONFIG to the file"),
    ],
)
def test_a_search_that_cannot_run_is_refused_before_anything_is_written(data, arguments, words, tmp_path):
    answer = fmnist_exp("tune", "--experiment", "tune_mlp", *arguments, cwd=tmp_path, env=environment())
    assert answer.returncode == 2, answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert words in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_backend_that_is_not_there_is_refused_before_anything_is_written(data, tmp_path, monkeypatch):
    answer = fmnist_exp("mlp", cwd=tmp_path, env={**environment(), "KERAS_BACKEND": "jaxx"})
    assert answer.returncode == 2
    assert answer.stderr == "fmnist-exp: KERAS_BACKEND=jaxx: must be tensorflow or jax\n"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RequestError, match="KERAS_BACKEND=jax: jax is not installed"):
        loading.load_keras()


def test_an_unreachable_server_is_one_sentence_without_its_password(tmp_path):
    address = "http://user:secret@127.0.0.1:9"
    answer = fmnist_exp("mlp", cwd=tmp_path, env={**environment(), "MLFLOW_TRACKING_URI": address})
    assert answer.returncode == 2
    assert "127.0.0.1:9 does not answer" in answer.stderr
    assert "secret" not in answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_missing_data_folder_is_one_message(tmp_path):
    answer = fmnist_exp("mlp", "--data.source", str(tmp_path / "none"), cwd=tmp_path, env=environment())
    assert answer.returncode == 2
    assert str(tmp_path / "none") in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_store_that_cannot_be_opened_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    address = f"sqlite:///{tmp_path}/file/mlflow.db"
    answer = fmnist_exp("mlp", cwd=tmp_path, env={**environment(), "MLFLOW_TRACKING_URI": address})
    assert answer.returncode == 2
    assert "cannot be used" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("ctrl_c_heeded")
def test_a_signal_during_the_imports_is_one_word_and_exit_code_130(tmp_path, number):
    (tmp_path / "click.py").write_text(f"import os; os.kill(os.getpid(), {int(number)})")  # the first that is imported
    answer = fmnist_exp("clean", cwd=tmp_path, env=environment())
    assert (answer.returncode, answer.stdout, answer.stderr) == (130, "", "fmnist-exp: interrupted\n")


def test_fields_are_read_in_both_spellings():
    assert parse_fields(["--seed", "3", "--model.l2=1e-4"]) == {"seed": "3", "model.l2": "1e-4"}
    with pytest.raises(RequestError, match=r"did you mean 'seed'\?"):
        parse_fields(["--sed", "3"])


def test_every_command_has_help():
    for command in main.commands.values():
        assert command.help


def environment() -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    return clean | {"PYTHONPATH": str(Path(__file__).parents[2])}
