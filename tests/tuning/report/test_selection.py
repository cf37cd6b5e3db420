"""The trials that the figures of a long study show, and the study's page with 10,000 trials in a real browser."""

import datetime
import itertools
import math
import random
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from support.browsers import chromium, needs_chromium
from support.searches import NOON, ended

from fmnist_exp.config.search import SearchConfig
from fmnist_exp.tuning.report import points, selection
from fmnist_exp.tuning.report import write as report

KINDS = {
    "training.learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
    **{name: FloatDistribution(0, 1) for name in ("model.dropout", "model.l2", "training.warmup", "training.x")},
}


def test_all_trials_of_a_short_study_are_shown():
    assert selection.positions([0.5] * 20, most=20) == list(range(20))


@pytest.mark.parametrize("order", ["random", "always better", "always worse"])
def test_of_a_long_study_the_best_and_the_records_are_shown(order):
    chance = random.Random(0)
    accuracies = [chance.random() for _ in range(3000)]
    if order != "random":
        accuracies.sort(reverse=order == "always worse")
    rows = selection.positions(accuracies, most=200)
    assert 150 <= len(rows) <= 200
    assert rows == sorted(set(rows))
    best = sorted(range(3000), key=lambda row: accuracies[row], reverse=True)[:50]
    assert set(best) <= set(rows)
    assert {0, 2999} <= set(rows)
    if order == "random":
        records = [row for row in range(3000) if accuracies[row] > max(accuracies[:row], default=0)]
        assert set(records) <= set(rows)
        assert max(there - here for here, there in itertools.pairwise(rows)) < 50


@pytest.fixture(scope="module")
def long_study() -> optuna.Study:
    """A study of 10,000 trials: half of them pruned, one in a hundred failed."""
    study = optuna.create_study(study_name="long", direction="maximize")
    chance = random.Random(0)
    for number in range(10_000):
        state = TrialState.FAIL if number % 100 == 99 else (TrialState.COMPLETE, TrialState.PRUNED)[number % 2]
        params = {name: 10 ** chance.uniform(-4, -1) if kind.log else chance.random() for name, kind in KINDS.items()}
        best = 0.9 + 0.01 * math.log10(params["training.learning_rate"]) + chance.gauss(0, 0.004)
        epochs = {TrialState.FAIL: 0, TrialState.PRUNED: 2, TrialState.COMPLETE: 5}[state]
        curve = {epoch: best - 0.1 / epoch for epoch in range(1, epochs + 1)}
        values = [best - 0.02] if state == TrialState.COMPLETE else None
        begin = NOON + datetime.timedelta(seconds=10 * number)
        more = {"state": state, "curve": curve, "start": begin, "end": begin + datetime.timedelta(seconds=19)}
        attrs = {"worker": f"worker-{number % 2}", "val_accuracy": best - 0.1 / max(1, epochs)}
        study.add_trial(ended(number, params, KINDS, values, attrs=attrs, **more))
    return study


@pytest.fixture(scope="module")
def folder(long_study, tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("study")
    search = SearchConfig.model_validate({"space": {"model.dropout": {"low": 0, "high": 1}}})
    report.write(long_study, search, made, images=6000)
    return made / "study"


def test_the_sentence_counts_all_trials_and_each_figure_says_how_many_it_shows(long_study):
    figures = points.prepare(long_study, ["val_accuracy"], images=6000)
    trials = figures["history"]
    assert isinstance(trials, points.Trials)
    best = max(long_study.best_trials, key=lambda trial: trial.value)
    assert trials.best.number == best.number
    assert trials.total == 9900
    everything = points.Trials(trials.points, trials.parameters, 6000, trials.accuracies)
    level = sum(accuracy >= everything.interval[0] for accuracy in trials.accuracies) - 1
    assert f"{level} other trials lie within" in trials.lead
    assert level > sum(point.best >= everything.interval[0] for point in trials.points) - 1  # those that are shown
    assert points.title("history", trials).endswith(f" ({len(trials.points)} of 9,900 trials)")
    assert points.title("timeline", figures["timeline"]) == "Trials by worker (500 of 10,000 trials)"
    assert points.title("importances", figures["importances"]) == points.TITLES["importances"]
    assert "at most about 500 trials" in points.notes(figures, long_study)[0]


@needs_chromium
def test_the_page_of_10000_trials_is_small_and_draws_everything(folder):
    """The time is measured by benchmarks.scale.pages; here the number of elements stands for it."""
    file = folder / "figures.html"
    assert file.stat().st_size < 5_000_000
    assert all(picture.stat().st_size < 1_000_000 for picture in folder.glob("*.png"))
    problems: list[str] = []
    with chromium() as browser:
        page = browser.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.goto(f"file://{file}")
        page.wait_for_selector("body[data-drawn]", state="attached")
        assert page.locator(".js-plotly-plot .main-svg").count() >= 6
        assert page.evaluate("document.querySelectorAll('*').length") < 15_000
    assert problems == []
