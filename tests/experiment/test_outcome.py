"""The notes of runs: their commands are those that work."""

import shlex

from fmnist_exp.cli import main
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.experiment.outcome import search_note


def test_the_commands_of_a_searchs_note_exist():
    resume = "fmnist-exp tune --experiment runs:/0123/experiment.yaml --study 'my study'"
    note = search_note(ExperimentConfig(name="tune_cnn"), "my study", "It found a model.", resume, "7")
    commands = [shlex.split(line) for line in note.splitlines() if line.startswith("    fmnist-exp")]
    assert [words[1] for words in commands] == ["tune", "serve", "evaluate"]
    for _, name, *arguments in commands:
        context = main.commands[name].make_context(name, list(arguments))
        assert {"tune": "study", "serve": "model", "evaluate": "model"}[name] in context.params
    assert commands[0][-1] == "my study"
    assert 'mlflow.pyfunc.load_model("models:/fashion-mnist/7")' in note
    assert "load_model" not in search_note(ExperimentConfig(), "study", "It was interrupted.", resume, None)
