"""Tests of the race of searches: its peers have our search space and network; its page and curves show the notes."""

import dataclasses
import time

import pytest
from mlflow import MlflowClient

from benchmarks import records
from benchmarks.peers import network
from benchmarks.runs import Version, git
from benchmarks.tuning import race, race_page
from fmnist_exp import models
from fmnist_exp.config import files
from fmnist_exp.tracking.names import Metric, Tag


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


def attempt(contestant: str, recipe: str, points: list[race_page.Point], machine: str = "here") -> race_page.Attempt:
    return race_page.Attempt(contestant, recipe, 0, 60.0, "this version", machine, points)


FINAL = (55, race_page.FINAL, 0.9)
OURS = attempt("fmnist_exp", "", [(30, 1, 0.8), (10, 0, 0.7), (20, 0, 0.6), FINAL])
PLAIN = attempt("plain_optuna", "same", [(50, 0, 0.75)])
TUTORIAL = attempt("plain_optuna", "tutorial", [(20, 0, 0.65), (50, 1, 0.72)])


def test_the_best_accuracy_so_far_and_its_time():
    assert OURS.curve() == [(10, 0.7), (30, 0.8), (55, 0.9)]
    assert (OURS.best, OURS.trials, OURS.reaches(0.75), OURS.reaches(0.95)) == (0.9, 2, 30, None)


def test_the_page_has_a_table_for_each_machine(tmp_path):
    attempts = [OURS, PLAIN, TUTORIAL, dataclasses.replace(PLAIN, machine="there", points=[(40, 0, 0.77)])]
    rows = race_page.page(attempts, 1, "Code: some.").splitlines()
    assert [row for row in rows if row.startswith(("## ", "The bar", "| fmnist_exp", "| plain_optuna"))] == [
        "## here",
        "The bar is 75.00 %, the mean of the plain Optuna script with the same recipe.",
        "| fmnist_exp | 1 | 90.00 | 2 | 70.00 | 30 |",
        "| fmnist_exp: without the final fit | 1 | 80.00 | 2 | 70.00 | 30 |",
        "| fmnist_exp: trial 0 alone | 1 | 70.00 | 1 | 70.00 | never |",
        "| plain_optuna, same | 1 | 75.00 | 1 | 75.00 | 50 |",
        "| plain_optuna, same: trial 0 alone | 1 | 75.00 | 1 | 75.00 | 50 |",
        "| plain_optuna, tutorial | 1 | 72.00 | 2 | 65.00 | never |",
        "| plain_optuna, tutorial: trial 0 alone | 1 | 65.00 | 1 | 65.00 | never |",
        "## there",
        "The bar is 77.00 %, the mean of the plain Optuna script with the same recipe.",
        "| plain_optuna, same | 1 | 77.00 | 1 | 77.00 | 40 |",
        "| plain_optuna, same: trial 0 alone | 1 | 77.00 | 1 | 77.00 | 40 |",
    ]
    race_page.curves(attempts, 1).savefig(tmp_path / "curves.png")


def test_an_attempt_is_kept_as_a_line_of_a_file_that_was_torn(tmp_path):
    (tmp_path / "race.jsonl").write_text('{"contestant": "hyper')
    records.append(tmp_path / "race.jsonl", dataclasses.asdict(OURS))
    assert race.read(tmp_path / "race.jsonl") == [OURS]


def test_the_platforms_points_are_those_of_its_trials_and_of_its_final_fit(store, tmp_path):
    client, start = MlflowClient(store), time.time()
    kinds = {"trial": {Tag.KIND: "trial", Tag.TRIAL: "3"}, "final": {Tag.KIND: "train", Tag.FINAL_OF: "a run"}}
    for name, tags in {**kinds, "parent": {Tag.KIND: "tune"}}.items():
        run = client.create_run("0", tags=tags, run_name=name)
        for metric, accuracy, seconds in ((Metric.VAL_ACCURACY, 0.5, 2), (Metric.BEST_VAL_ACCURACY, 0.6, 3)):
            client.log_metric(run.info.run_id, metric, accuracy, timestamp=int(1000 * (start + seconds)), step=1)
    points = [(round(seconds), number, accuracy) for seconds, number, accuracy in race.tracked(tmp_path, start)]
    assert points == [(2, 3, 0.5), (2, race_page.FINAL, 0.5), (3, race_page.FINAL, 0.6)]


def test_a_search_of_other_code_is_another_version(monkeypatch):
    version = Version(
        git("rev-parse", "HEAD"),
        {Tag.LIBRARIES: "these", Tag.THREADS: "2", Tag.PROCESSOR: "A", Tag.BACKEND: "tensorflow"},
    )
    digests = {name: race.identity(version, name)[0] for name in race_page.CONTESTANTS}
    assert len(set(digests.values())) == 2, "the peers, which do not depend on fmnist_exp.tuning, and the platform"
    own = race.code_digest

    def of_other_searches(commit: str, parts: tuple[str, ...]) -> str:
        return own(commit, parts) + str("tuning" in parts)

    monkeypatch.setattr(race, "code_digest", of_other_searches)
    changed = {name: race.identity(version, name)[0] for name in race_page.CONTESTANTS}
    assert changed[race_page.OURS] != digests[race_page.OURS]
    monkeypatch.undo()
    other = dataclasses.replace(version, conditions={**version.conditions, Tag.LIBRARIES: "others"})
    assert race.identity(other, "hyperband")[0] != digests["hyperband"]
