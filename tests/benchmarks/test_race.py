"""Tests of the race of searches: its peers have our search space and network; its page and curves show the notes."""

import pytest

from benchmarks.peers import network
from benchmarks.tuning import race
from fmnist_exp import models
from fmnist_exp.config import files


@pytest.mark.parametrize("widths", [(16, 32), (48, 96, 128)])
@pytest.mark.parametrize("recipe", ["tutorial", "same"])
def test_the_peers_network_is_ours(widths, recipe):
    config = files.load("tune_cnn").model
    own = config.model_copy(update={"widths": widths, "convolutions": (1, 2, 2)[: len(widths)]})
    theirs = network.build(network.Setting(0.1, 1e-5, 0.1, widths), recipe)
    assert theirs.count_params() == models.build(own).count_params()


def test_the_peers_space_is_ours():
    searched = files.load("tune_cnn").search.space
    assert (searched["model.dropout"].low, searched["model.dropout"].high) == network.DROPOUT
    assert (searched["model.l2"].low, searched["model.l2"].high) == network.L2
    assert (searched["training.learning_rate"].low, searched["training.learning_rate"].high) == network.RATE
    assert searched["model.widths"].limits() == [(low, high) for low, high, _ in network.BLOCKS]
    assert searched["model.widths"].step == network.STEP


def test_the_best_accuracy_so_far_and_its_time(tmp_path):
    ours = race.Attempt("fmnist_exp", 0, 60.0, [(30, 1, 0.8), (10, 0, 0.7), (20, 0, 0.6)])
    plain = race.Attempt("plain_optuna", 0, 60.0, [(50, 0, 0.75)])
    assert ours.curve() == [(10, 0.7), (30, 0.8)]
    assert (ours.best, ours.trials, ours.reaches(0.75), ours.reaches(0.9)) == (0.8, 2, 30, None)
    rows = race.page([ours, plain], "tutorial", 1).splitlines()
    assert "| fmnist_exp | 1 | 80.00 | 2 | 30 |" in rows
    assert "| plain_optuna | 1 | 75.00 | 1 | 50 |" in rows
    race.curves([ours, plain], 1).savefig(tmp_path / "curves.png")
    race.write(ours, tmp_path / "fmnist_exp-0.json")
    assert race.read(tmp_path) == [ours]
