"""Tests of the race of searches: its peers have our search space and network; its page and curves show the notes."""

import dataclasses

import pytest

from benchmarks.peers import network
from benchmarks.tuning import race, race_page
from fmnist_exp import models
from fmnist_exp.config import files


@pytest.mark.parametrize("widths", [(16, 32), (48, 96, 128)])
@pytest.mark.parametrize("recipe", race_page.RECIPES)
def test_the_peers_network_is_ours(widths, recipe):
    config = files.load("tune_cnn").model
    own = config.model_copy(update={"widths": widths, "convolutions": (1, 2, 2)[: len(widths)]})
    theirs = network.build(network.Setting(0.1, 1e-5, 0.1, widths), recipe, 1, 48_000)
    assert theirs.count_params() == models.build(own).count_params()


def test_the_peers_space_is_ours():
    searched = files.load("tune_cnn").search.space
    assert (searched["model.dropout"].low, searched["model.dropout"].high) == network.DROPOUT
    assert (searched["model.l2"].low, searched["model.l2"].high) == network.L2
    rates = searched["training.learning_rate"]
    assert (rates.low, rates.high) == network.RECIPES["same"].rate
    assert searched["model.widths"].limits() == [(low, high) for low, high, _ in network.BLOCKS]
    assert searched["model.widths"].step == network.STEP


def test_all_contestants_begin_with_the_same_setting():
    """F8: the platform's search began with a setting that was chosen by hand, its peers with a random one."""
    config = files.load("tune_cnn")
    own = (config.model.dropout, config.model.l2, config.training.learning_rate, config.model.widths)
    first = network.RECIPES["same"].first
    assert own == (first.dropout, first.l2, first.learning_rate, first.widths)
    assert network.RECIPES["tutorial"].first == dataclasses.replace(first, learning_rate=1e-3)


def test_each_recipe_has_a_range_for_its_optimizer():
    for name, recipe in network.RECIPES.items():
        low, high = recipe.rate
        assert low < recipe.first.learning_rate < high
        model = network.build(recipe.first, name, 5, 48_000)
        assert type(model.optimizer).__name__ == {"same": "Muon", "tutorial": "Adam"}[name]


def test_the_best_accuracy_so_far_and_its_time(tmp_path):
    ours = race_page.Attempt("fmnist_exp", "", 0, 60.0, [(30, 1, 0.8), (10, 0, 0.7), (20, 0, 0.6)])
    plain = race_page.Attempt("plain_optuna", "same", 0, 60.0, [(50, 0, 0.75)])
    tutorial = race_page.Attempt("plain_optuna", "tutorial", 0, 60.0, [(20, 0, 0.65), (50, 1, 0.72)])
    assert ours.curve() == [(10, 0.7), (30, 0.8)]
    assert (ours.best, ours.trials, ours.reaches(0.75), ours.reaches(0.9)) == (0.8, 2, 30, None)
    rows = race_page.page([ours, plain, tutorial], 1, "Code: some.").splitlines()
    assert [row for row in rows if row.startswith(("| fmnist_exp", "| plain_optuna"))] == [
        "| fmnist_exp | 1 | 80.00 | 2 | 70.00 | 30 |",
        "| fmnist_exp: trial 0 alone | 1 | 70.00 | 1 | 70.00 | never |",
        "| plain_optuna, same | 1 | 75.00 | 1 | 75.00 | 50 |",
        "| plain_optuna, same: trial 0 alone | 1 | 75.00 | 1 | 75.00 | 50 |",
        "| plain_optuna, tutorial | 1 | 72.00 | 2 | 65.00 | never |",
        "| plain_optuna, tutorial: trial 0 alone | 1 | 65.00 | 1 | 65.00 | never |",
    ]
    race_page.curves([ours, plain, tutorial], 1).savefig(tmp_path / "curves.png")
    race.write(ours, tmp_path / "fmnist_exp-0.json")
    assert race.read(tmp_path) == [ours]
