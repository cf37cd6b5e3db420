"""Every PNG of a study draws, also for the least there is to draw, and its words say the right numbers."""

import itertools

import numpy as np
import pytest
from matplotlib.lines import Line2D
from support.figures import words

from fmnist_exp.evaluation import intervals
from fmnist_exp.tuning.report import static
from fmnist_exp.tuning.report.points import Parameter, ParetoFront, TrialPoint, Trials
from fmnist_exp.tuning.report.timelines import Stretch, Timeline

RATE = "training.learning_rate"


def trial(number: int, state: str = "COMPLETE", epochs: int = 3) -> TrialPoint:
    accuracies = {epoch: 0.5 + number / 10 + epoch / 100 for epoch in range(1, epochs + 1)}
    return TrialPoint(number, state, accuracies, best=max(accuracies.values()) + 0.001)  # averaging makes it better


def study(*points: TrialPoint, rates: list[float] | None = None) -> Trials:
    rates = rates or [10.0 ** -(point.number + 1) for point in points]
    dropout = Parameter("model.dropout", [point.number / 10 for point in points])
    return Trials(points, [dropout, Parameter(RATE, rates, logarithmic=True)], images=500)


STUDIES = {
    "one trial": study(trial(0)),
    "one trial of one epoch": study(trial(0, epochs=1)),
    "all pruned": study(*(trial(n, "PRUNED", 1) for n in range(3))),
    "the pruned one is highest": study(trial(0), trial(1), trial(2, "PRUNED")),
    "a parameter that never changes": study(*(trial(n) for n in range(3)), rates=[0.1] * 3),
}
EVERY = pytest.mark.parametrize("trials", STUDIES.values(), ids=STUDIES)


def curves(line: Line2D) -> list[list[tuple[int, float]]]:
    """Return the curves of a line, which lifts its pen after each of them."""
    found: list[list[tuple[int, float]]] = [[]]
    for epoch, accuracy in zip(line.get_xdata(), line.get_ydata(), strict=True):
        if np.isnan(epoch):
            found.append([])
        else:
            found[-1].append((int(epoch), float(accuracy)))
    return found[:-1]


@EVERY
def test_learning_curves(trials):
    figure = static.learning_curves(trials)
    best = max(trials.points, key=lambda t: t.best)
    assert f"highest: trial {best.number}, {intervals.text(best.best, 500)}" in words(figure)
    *lines, best_line = [line for line in figure.axes[0].get_lines() if line.get_marker() == "."]
    drawn = [curve for line in lines for curve in curves(line)]
    assert sorted(drawn) == sorted(list(each.accuracies.items()) for each in trials.points)
    assert curves(best_line) == [list(best.accuracies.items())]
    crosses = [line for line in figure.axes[0].get_lines() if line.get_marker() == "x"]
    assert sum(len(line.get_xdata()) for line in crosses) == sum(each.pruned for each in trials.points)


@EVERY
def test_history(trials):
    figure = static.history(trials)
    assert "the highest so far" in words(figure)
    markers = [line for line in figure.axes[0].get_lines() if line.get_marker() in ("o", "x")]
    points = dict(pair for line in markers for pair in zip(*line.get_data(), strict=True))
    assert {t.number: points[t.number] for t in trials.points} == {t.number: t.best for t in trials.points}
    (so_far,) = [line for line in figure.axes[0].get_lines() if line.get_drawstyle() == "steps-post"]
    assert list(so_far.get_ydata()) == list(itertools.accumulate((t.best for t in trials.points), max))


@EVERY
def test_slices_has_an_axis_per_parameter(trials):
    figure = static.slices(trials)
    words(figure)
    scales = {axes.get_xlabel(): axes.get_xscale() for axes in figure.axes if axes.get_xlabel()}
    assert scales == {RATE: "log", "model.dropout": "linear"}
    counts = [sum(len(line.get_xdata()) for line in axes.get_lines()) for axes in figure.axes[:2]]
    assert counts == [len(trials.points) + 1] * 2  # the best one is drawn again, over the others


def test_slices_with_more_parameters_than_columns():
    assert "p5" in words(static.slices(Trials([trial(0)], [Parameter(f"p{i}", [float(i)]) for i in range(6)])))


@EVERY
def test_parallel_coordinates_has_a_line_per_trial(trials):
    figure = static.parallel_coordinates(trials)
    said = words(figure)
    assert all(label in said for label in ("learning_rate", "dropout", "val_accuracy"))
    rates = trials.parameters[1].values
    assert f"{min(rates):.3g}" in said
    assert f"{max(rates):.3g}" in said
    (lines,) = figure.axes[0].collections
    assert [len(segment) for segment in lines.get_segments()] == [3] * len(trials.points)


@pytest.mark.parametrize("shares", [{"model.dropout": 1.0}, {"a": 0.7, "b": 0.3, "c": 0.0}])
def test_importances(shares):
    figure = static.importances(shares)
    said = words(figure)
    assert all(f"{share:.2f}" in said and name in said for name, share in shares.items())
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == list(shares.values())[::-1]


def test_choices_are_shown_by_their_names():
    optimizer = Parameter("training.optimizer", [0, 1, 0], choices=["adam", "sgd"])
    trials = Trials([trial(n) for n in range(3)], [optimizer, Parameter("x", [0, 1, 2])])
    for figure in (static.slices(trials), static.parallel_coordinates(trials)):
        assert {"adam", "sgd"} <= set(words(figure).splitlines())


def test_the_front_is_marked_for_each_other_objective():
    measured = {4: {"val_accuracy": 0.9, "parameters": 50}, 7: {"val_accuracy": 0.8, "parameters": 20}}
    measured[8] = {"val_accuracy": 0.7, "parameters": 60}
    figure = static.pareto_front(ParetoFront(measured, [4, 7]))
    words(figure)
    assert [text.get_text() for text in figure.axes[0].texts] == ["4", "7"]
    front = next(line for line in figure.axes[0].get_lines() if line.get_label() == "Pareto front")
    assert list(zip(*front.get_data(), strict=True)) == [(20, 0.8), (50, 0.9)]
    more = {number: {**values, "prediction_seconds": values["parameters"] / 1e6} for number, values in measured.items()}
    labels = [axes.get_xlabel() for axes in static.pareto_front(ParetoFront(more, [4, 7])).axes]
    assert labels == ["parameters", "seconds per prediction, one image"]


def test_the_timeline_has_a_bar_per_trial_and_a_row_per_worker():
    stretches = [
        Stretch(0, "b", "COMPLETE", 0, 1),
        Stretch(1, "a", "PRUNED", 0.5, 1),
        Stretch(2, "b", "FAIL", 1, 1 / 6),
    ]
    figure = static.timeline(Timeline(stretches, [1.1]))
    said = words(figure)
    assert all(text in said for text in ("a", "b", "complete", "pruned", "failed", "minutes, pauses left out"))
    bars = sorted((bar.get_x(), bar.get_width()) for bar in figure.axes[0].patches)
    assert [left for left, _ in bars] == pytest.approx([0, 0.5, 1])
    assert [width for _, width in bars] == pytest.approx([1, 1, 1 / 6])
    assert "pruned" not in words(static.timeline(Timeline(stretches[:1], [])))  # the legend names only what occurs
