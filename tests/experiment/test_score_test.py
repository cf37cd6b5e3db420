"""Finding F3: the test set is scored by request, and by default only where the recipe is finished or registered."""

import mlflow
import pytest
from click.testing import CliRunner

from fmnist_exp.cli import main
from fmnist_exp.cli import train as cli_train
from fmnist_exp.cli.train import COMMANDS
from fmnist_exp.config import files
from fmnist_exp.config.fields import flatten
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.experiment.train import TrainRequest, train

TINY = {"name": "tiny", "model.family": "mlp", "model.widths": [8], "training.epochs": 1, "training.batch_size": 50}


@pytest.mark.parametrize("asked", [None, True])
def test_f3_a_run_is_scored_if_it_is_asked_for(shared_store, small, asked):
    config = files.override(ExperimentConfig(), TINY)
    result = train(TrainRequest(experiment=config, data=small, score_test=asked))
    run = mlflow.get_run(result.run_id)
    assert (result.outcomes["tiny"].test is not None) == ("test_accuracy" in run.data.metrics) == bool(asked)
    tags = run.data.tags
    assert (tags["fmnist.score_test"], "fmnist.test_scored" in tags) == (str(bool(asked)).lower(), bool(asked))
    contexts = {entry.tags[0].value for entry in run.inputs.dataset_inputs}
    assert ("test" in contexts) == bool(asked)
    assert ("--score_test true" in tags["mlflow.note.content"]) == (not asked)


def test_f3_the_default_depends_on_the_entry_point():
    options = {
        command.name: next((option for option in command.params if option.name == "score_test"), None)
        for command in COMMANDS
    }
    defaults = {name: option.default for name, option in options.items() if option}
    assert defaults.pop("baseline") == "true"
    assert set(defaults.items()) == {(name, None) for name in ("main", "train", "mlp", "cnn", "ensemble")}


@pytest.mark.parametrize("recipe", ["mlp", "cnn"])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"seed": 1, "data.split_seed": 0}, True),
        ({"training.epochs": 7}, None),
        ({"model.averaging": "none"}, None),
        ({"augmentation.shift": 2}, None),
    ],
)
def test_f3_a_changed_recipe_is_not_scored_by_default(recipe, changes, expected):
    """A recipe with other fields is an idea that is being developed, not a finished one."""
    config = files.load(recipe, changes)
    assert cli_train._or_unchanged(None, recipe, config) is expected
    same = {name: value for name, value in flatten(files.load(recipe)).items() if name in changes}
    assert cli_train._or_unchanged(None, recipe, files.load(recipe, same)) is True, "a value of the recipe is no change"
    for asked in (True, False):
        assert cli_train._or_unchanged(asked, recipe, config) is asked


@pytest.mark.parametrize("asked", [False, True])
def test_f3_a_command_with_a_changed_recipe_scores_it_only_if_it_is_asked_for(shared_store, folder, asked):
    changes = [
        "--data.source",
        folder,
        "--model.widths",
        "[8]",
        "--training.epochs",
        "1",
        "--training.batch_size",
        "50",
    ]
    arguments = ["mlp", *changes, *(["--score_test"] if asked else [])]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False, standalone_mode=False)
    assert ("not scored on the test set; --score_test true" in done.output) == (not asked)
