"""The notes of runs: their commands are those that work."""

import shlex

from fmnist_exp.cli import main
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.experiment import notes


def test_the_commands_of_a_searchs_note_exist():
    note = notes.of_search(ExperimentConfig(name="tune_cnn"), "0123", "my study", "It found a model.", "7")
    commands = [shlex.split(line) for line in note.splitlines() if line.startswith("    fmnist-exp")]
    assert [words[1] for words in commands] == ["tune", "serve", "evaluate"]
    for _, name, *arguments in commands:
        context = main.commands[name].make_context(name, list(arguments))
        assert {"tune": "study", "serve": "model", "evaluate": "model"}[name] in context.params
    assert commands[0][-1] == "my study"
    assert 'mlflow.pyfunc.load_model("models:/fashion-mnist/7")' in note
    assert "load_model" not in notes.of_search(ExperimentConfig(), "0123", "study", "It was interrupted.", None)
