"""Finding F3: the test set is scored by request, and by default only where the recipe is finished or registered."""

import mlflow
import pytest

from fmnist_exp.cli.train import COMMANDS
from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.experiment.train import TrainRequest, train

TINY = {"name": "tiny", "model.family": "mlp", "model.widths": [8], "training.epochs": 1, "training.batch_size": 50}


@pytest.mark.parametrize("asked", [None, True])
def test_a_run_is_scored_if_it_is_asked_for(shared_store, small, asked):
    config = files.override(ExperimentConfig(), TINY)
    result = train(TrainRequest(experiment=config, data=small, score_test=asked))
    run = mlflow.get_run(result.run_id)
    assert (result.outcomes["tiny"].test is not None) == ("test_accuracy" in run.data.metrics) == bool(asked)
    tags = run.data.tags
    assert (tags["fmnist.score_test"], "fmnist.test_scored" in tags) == (str(bool(asked)).lower(), bool(asked))
    contexts = {entry.tags[0].value for entry in run.inputs.dataset_inputs}
    assert ("test" in contexts) == bool(asked)
    assert ("--score_test true" in tags["mlflow.note.content"]) == (not asked)


def test_the_default_depends_on_the_entry_point():
    options = {
        command.name: next((option for option in command.params if option.name == "score_test"), None)
        for command in COMMANDS
    }
    defaults = {name: option.default for name, option in options.items() if option}
    assert defaults.pop("baseline") == defaults.pop("mlp") == defaults.pop("cnn") == "true"
    assert defaults == {"main": None, "train": None, "ensemble": None}
