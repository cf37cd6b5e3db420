"""The files of a study: the interactive page in a real browser, the PNGs and tables, and the points behind them.

No trial is trained: the studies are made up.
"""

import datetime
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from playwright.sync_api import expect
from support.browsers import chromium, needs_chromium
from support.searches import NOON, ended

from fmnist_exp.config.search import SearchConfig
from fmnist_exp.tuning.record import TrialRecord
from fmnist_exp.tuning.report import points, timelines
from fmnist_exp.tuning.report import write as report
from fmnist_exp.tuning.sampling import build as samplers

KINDS = {
    "training.learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
    "training.optimizer": CategoricalDistribution(['"adam"', '"sgd"']),
}

DROPOUT = {"model.dropout": FloatDistribution(0, 1)}


def seconds(count: float) -> datetime.datetime:
    return NOON + datetime.timedelta(seconds=count)


def study_of(names: tuple[str, ...], rounds: int = 1) -> optuna.Study:
    """Two workers, eight trials, one of them pruned and one failed; then, hours later, two more; all that in rounds."""
    study = optuna.create_study(study_name="<b>told</b>", directions=samplers.directions(search(names)))
    for trial in range(10 * rounds):
        number = trial % 10
        begin = number // 2 * 10 + (7200 if number > 7 else 0)
        state = {2: TrialState.PRUNED, 5: TrialState.FAIL}.get(number, TrialState.COMPLETE)
        accuracy = 0.8 + (number * 7 % 10) / 100
        curve = {} if state == TrialState.FAIL else {1: accuracy - 0.1, **({} if number == 2 else {2: accuracy})}
        attrs: dict = {"worker": f"worker-{number % 2}"} | (
            {} if len(names) == 1 else {"val_accuracies": list(curve.values())}
        )
        params = {
            "training.learning_rate": 10 ** -(1 + number / 5),
            "training.optimizer": ['"adam"', '"sgd"'][number % 2],
        }
        values = [accuracy, 1000.0 * number][: len(names)] if state == TrialState.COMPLETE else None
        more = {"state": state, "attrs": attrs, "start": seconds(begin), "end": seconds(begin + 9)}
        study.add_trial(ended(trial, params, KINDS, values, curve=curve if len(names) == 1 else {}, **more))
    return study


def search(names: tuple[str, ...]) -> SearchConfig:
    return SearchConfig.model_validate(
        {"space": {"model.dropout": {"low": 0, "high": 1}}, "objectives": names, "pruner": "none"}
    )


ROUNDS = {("val_accuracy",): 1, ("val_accuracy", "parameters"): 6}  # 8 complete trials in each


@pytest.fixture(scope="module", params=ROUNDS, ids=["one", "two"])
def written(request, tmp_path_factory) -> tuple[tuple[str, ...], Path]:
    folder = tmp_path_factory.mktemp("study")
    report.write(study_of(request.param, ROUNDS[request.param]), search(request.param), folder, images=1000)
    return request.param, folder / "study"


FRAME = """text => {
  const frame = document.createElement("iframe");
  frame.sandbox = "allow-scripts";
  frame.src = URL.createObjectURL(new Blob([text], {type: "text/html"}));
  frame.style = "width: 1000px; height: 900px";
  document.body.append(frame);
}"""


@needs_chromium
def test_the_page_works_in_the_frame_in_which_mlflow_shows_it(written):
    _, folder = written
    problems: list[str] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1100, "height": 1000})
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))  # where a policy's violations appear
        page.evaluate(FRAME, (folder / "figures.html").read_text(encoding="utf-8"))
        plot = page.frame_locator("iframe").locator("#history")
        point = plot.locator(".points path").first
        point.scroll_into_view_if_needed()
        point.hover(force=True)
        expect(plot.locator(".hoverlayer text").first).to_contain_text("training.learning_rate")
        ticks = plot.locator(".xtick").all_text_contents()
        area = plot.locator(".nsewdrag").bounding_box()
        page.mouse.move(area["x"] + 100, area["y"] + 30)
        page.mouse.down()
        page.mouse.move(area["x"] + 300, area["y"] + 150, steps=5)
        page.mouse.up()
        expect(plot.locator(".xtick").first).not_to_have_text(ticks[0])  # it has zoomed
    assert problems == []


@needs_chromium
def test_the_page_draws_every_figure_without_a_network(written):
    names, folder = written
    problems: list[str] = []
    with chromium() as browser:
        page = browser.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
        page.goto(f"file://{folder / 'figures.html'}")
        page.wait_for_selector(".js-plotly-plot .main-svg")
        titles = [text.text_content() for text in page.query_selector_all(".gtitle")]
        assert page.text_content("h1") == "Study <b>told</b>"
        lead, *notes = page.locator("p").all_text_contents()
        curves = page.evaluate(
            "[...document.querySelectorAll('.js-plotly-plot')].find(p => p.layout.title.text.startsWith('Learning'))"
            ".data.map(d => [d.name, d.x.filter(x => x !== null).length])"
        )
        rows = page.evaluate(
            "[...document.querySelectorAll('.js-plotly-plot')].find(p => p.layout.title.text == 'Trials by worker')"
            ".data.map(d => [d.name, d.y.length])"
        )
    assert problems == []
    expected = ["history", "parallel_coordinates", "slices", "learning_curves"]
    if len(names) > 1:
        expected = ["pareto_front", *expected, "importances"]
        assert notes == []
    else:  # F15
        assert "it needs 41 complete trials, and the study has 8." in notes[0]
    assert titles == [points.TITLES[name] for name in [*expected, "timeline"]]
    rounds = ROUNDS[names]
    assert curves == [["pruned", rounds], ["complete", 16 * rounds], ["stopped here", rounds], ["highest: trial 7", 2]]
    assert rows == [["complete", 8 * rounds], ["pruned", rounds], ["failed", rounds]]
    highest, others, chosen = lead.split(". ")
    assert highest == "Trial 7 has the highest validation accuracy, 89.00% (86.91 to 90.79)"
    assert others.startswith(f"{3 * rounds - 1} other trials lie within the 95% interval of the highest accuracy, ")
    assert "a little lower" in chosen


def test_a_png_of_each_figure_and_the_table(written):
    names, folder = written
    drawn = {"history", "learning_curves", "slices", "parallel_coordinates", "timeline"}
    more = {"pareto_front", "importances"} if len(names) > 1 else set()
    assert {file.stem for file in folder.glob("*.png")} == drawn | more
    head, *rows = (folder / "trials.csv").read_text().splitlines()
    assert len(rows) == 10 * ROUNDS[names]
    assert ("value_parameters" in head) == (len(names) > 1)
    assert "val_accuracies" not in head


def test_a_trial_that_paused_has_a_bar_for_each_part():
    noon = NOON.timestamp()
    parts = [["one", noon, noon + 30], ["two", noon + 90, noon + 120]]
    paused = ended(
        0, {}, {}, [0.5], attrs={"worker": "two", "stretches": parts}, end=NOON + datetime.timedelta(minutes=2)
    )
    other = ended(
        1,
        {},
        {},
        [0.5],
        attrs={"worker": "one"},
        start=NOON + datetime.timedelta(minutes=0.5),
        end=NOON + datetime.timedelta(minutes=2),
    )
    times = timelines.prepare([paused, other])
    assert TrialRecord.of(paused).seconds(paused) == 60
    assert TrialRecord.of(other).seconds(other) == 90
    assert [(bar.number, bar.worker, bar.start, bar.length) for bar in times.stretches] == [
        (0, "one", 0, 0.5),
        (1, "one", 0.5, 1.5),
        (0, "two", 1.5, 0.5),
    ]


def test_a_pause_is_left_out_of_the_timeline():
    times = timelines.prepare(study_of(("val_accuracy",)).get_trials())
    assert [(one.number, one.worker, one.start * 60, one.length * 60) for one in times.stretches[-3:]] == [
        (7, "worker-1", 30, 9),
        (8, "worker-0", 39, 9),
        (9, "worker-1", 39, 9),
    ]
    assert times.cuts == [39 / 60]
    assert [one.state for one in times.stretches][5] == "FAIL"


def test_a_trial_without_a_worker_ran_in_the_driver():
    study = optuna.create_study(direction="maximize")
    study.tell(study.ask(), 0.5)
    study.ask()  # it still runs, and has no place yet
    assert [one.worker for one in timelines.prepare(study.get_trials()).stretches] == ["driver"]
    assert timelines.prepare([]).stretches == []


def test_accuracy_is_one_objective_among_several():
    one, two = (points.prepare(study_of(names, 6), names, images=1000) for names in ROUNDS)
    assert two["history"] == one["history"]
    assert two["importances"] == one["importances"]
    assert one.keys() | {"pareto_front"} == two.keys()
    rate, optimizer = one["slices"].parameters
    assert (rate.logarithmic, optimizer.logarithmic) == (True, False)
    assert (optimizer.choices, optimizer.values[:3]) == (["adam", "sgd"], [0, 1, 0])
    assert one["history"].best.number == 7


def test_a_height_is_on_the_scale_of_the_search():
    assert points.Parameter("rate", [1e-4, 1e-3, 1e-2], logarithmic=True).heights == pytest.approx([0, 0.5, 1])
    assert points.Parameter("depth", [3, 3]).heights == pytest.approx([0, 0])


def test_a_study_without_a_finished_trial_has_a_page(tmp_path):
    study = optuna.create_study(direction="maximize")
    report.write(study, search(("val_accuracy",)), tmp_path, images=1000)
    assert {file.name for file in (tmp_path / "study").iterdir()} == {"figures.html", "trials.csv"}


@pytest.mark.parametrize(("trials", "drawn"), [(points.ENOUGH - 1, False), (points.ENOUGH, True)])
def test_importances_need_five_trials_among_the_best_tenth(trials, drawn):
    """F15: of ten trials, PED-ANOVA takes one as the best tenth."""
    study = optuna.create_study(direction="maximize")
    for number in range(trials):
        study.add_trial(
            ended(number, {"model.dropout": number / trials}, DROPOUT, [number / 100], curve={1: 0.4, 2: 0.5})
        )
    figures = points.prepare(study, ["val_accuracy"], images=1000)
    assert ("importances" in figures) == drawn
    assert bool(points.notes(figures, study)) != drawn


def test_curves_are_drawn_if_a_trial_has_two_epochs():
    """With shortened trials of one epoch, the figure was a heap of points above each other."""
    study = optuna.create_study(direction="maximize")
    study.add_trial(ended(0, {"model.dropout": 0.1}, DROPOUT, [0.5], curve={1: 0.5}))
    figures = points.prepare(study, ["val_accuracy"], images=1000)
    assert {"history", "slices"} <= figures.keys()
    assert "learning_curves" not in figures
    assert points.notes(figures, study)[0] == (
        "There is no figure of learning curves, because every trial has one epoch."
    )
    study.add_trial(ended(1, {"model.dropout": 0.2}, DROPOUT, [0.6], curve={1: 0.5, 2: 0.6}))
    assert "learning_curves" in points.prepare(study, ["val_accuracy"], images=1000)
