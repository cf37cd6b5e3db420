"""Tests of the replay of searches on a table of learning curves, which are made up here."""

import json

import numpy as np
import optuna
import pytest

from benchmarks.lcbench.peers import PEERS
from benchmarks.tuning import replay
from fmnist_exp.config import files
from fmnist_exp.tuning.space import SearchSpace

EPOCHS, SETTINGS = 5, 24


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    return SearchSpace(files.load("tune_cnn", {}))


@pytest.fixture
def file(tmp_path, space):
    """The fits of settings that are the better, the higher their learning rate is; with fits of other kinds."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(space.defaults())
    lines = []
    for number in range(SETTINGS):
        trial = study.ask()
        space.suggest(trial)
        best = 0.9 + trial.params["training.learning_rate"] / 10
        curve = [best - 0.1 / epoch for epoch in range(1, EPOCHS + 1)]
        entry = {"digest": "new", "setting": number, "params": trial.params}
        lines += [{**entry, "fit": "final fit", "curve": [1.0] * 12}, {**entry, "fit": "trial", "curve": curve}]
    lines.insert(0, {**lines[1], "digest": "old", "curve": [1.0] * EPOCHS})
    path = tmp_path / "fits.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def table(file, space):
    return replay.read(file, space)


def test_the_table_has_the_whole_trials_of_the_newest_experiment(table, space):
    assert table.curves.shape == (SETTINGS, EPOCHS)
    assert table.curves.max() < 0.94


def test_a_setting_has_the_curve_of_the_nearest_one_whatever_its_unused_layers_are(table, space):
    near = space.defaults() | {"model.dropout": 0.001}
    assert (table.curve(near) == table.curves[0]).all()
    two = space.defaults() | {"model.widths.depth": 2}
    assert (table.curve(two | {"model.widths.3": 64}) == table.curve(two | {"model.widths.3": 128})).all()
    assert set(table.draw(np.random.default_rng(0))) == set(near)


@pytest.mark.parametrize("contestant", [replay.OURS, *PEERS])
def test_every_contestant_begins_with_the_same_random_setting_and_spends_the_budget(contestant, table):
    found = replay.search(contestant, table, 1, 6 * EPOCHS)
    assert found.best[0] == (1, table.curve(table.draw(np.random.default_rng(1)))[0])
    assert found.regret(6 * EPOCHS) <= found.regret(EPOCHS)
    assert 0 <= found.regret(6 * EPOCHS) < 60
    again = replay.search(contestant, table, 1, 6 * EPOCHS)
    assert again.best == found.best


def test_the_command_prints_the_table(file, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["replay", "--file", str(file), "--seeds", "2", "--budget", "3"])
    replay.main()
    printed = capsys.readouterr().out
    assert "24 settings of tune_cnn" in printed
    assert "a part of the budget of 3 full trials (15 epochs)" in printed
    assert all(f"| {name} |" in printed for name in ["fmnist_exp", "asha", "random_search", "optuna_tpe"])
