"""The figures of a study as matplotlib draws them, for PNG files."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from fmnist_exp.figures.canvas import DPI, TRAIN, VALIDATION, WRONG, blank
from fmnist_exp.tuning.report import points
from fmnist_exp.tuning.report.points import GREY, LABELS, STATES, by_state, title
from fmnist_exp.tuning.report.selection import MARKED
from fmnist_exp.tuning.report.timelines import Timeline


def learning_curves(trials: points.Trials) -> Figure:
    """Draw the validation accuracy of all trials by epoch."""
    figure, axes = blank(8, 5, left=0.85)
    for name, color, rows in by_state(trials.points):
        lines = [trials.points[row].accuracies for row in rows]
        style: dict[str, Any] = {"marker": "."} if len(trials.points) <= MARKED else {"linewidth": 0.5, "alpha": 0.5}
        _lines(axes, lines, color=color, zorder=1 if name == "pruned" else 2, **style)
    _lines(axes, [trials.best.accuracies], color=VALIDATION, zorder=3, marker=".")
    if ends := [max(trial.accuracies.items()) for trial in trials.points if trial.pruned]:
        axes.plot(*zip(*ends, strict=True), "x", color=WRONG)
    axes.set(xlabel="epoch", title=title("learning_curves", trials))
    _finish(axes, trials, WRONG)
    return figure


def history(trials: points.Trials) -> Figure:
    """Draw the validation accuracy of each trial in order, and the highest so far."""
    figure, axes = blank(8, 5, left=0.85)
    _markers(axes, trials, [trial.number for trial in trials.points])
    axes.step(*trials.best_so_far, where="post", color=VALIDATION)
    axes.set(xlabel="trial", title=title("history", trials))
    _finish(axes, trials, STATES["PRUNED"][1])
    return figure


def _lines(axes: Axes, lines: Sequence[Mapping[int, float]], **style: Any) -> None:
    """Draw a line per trial, all as one, because each object of matplotlib takes a millisecond."""
    epochs = [epoch for line in lines for epoch in (*line, np.nan)]  # which lifts the pen
    axes.plot(epochs, [value for line in lines for value in (*line.values(), np.nan)], **style)


def _markers(axes: Axes, trials: points.Trials, x: Sequence[float], **style: Any) -> None:
    """Draw each trial as a marker at its value of `x` and its accuracy."""
    for name, color, rows in by_state(trials.points):
        marker, zorder = ("x", 2) if name == "pruned" else ("o", 3)
        accuracies = [trials.points[row].best for row in rows]
        axes.plot([x[row] for row in rows], accuracies, marker, color=color, zorder=zorder, **style)


def _finish(axes: Axes, trials: points.Trials, cross: str) -> None:
    """Finish the learning curves and the history: whole numbers on the lower axis, the legend and the grid."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.plot([], [], "o", color=TRAIN, label="complete")
    axes.plot([], [], "x", color=cross, label="pruned")
    axes.plot([], [], color=VALIDATION, label=f"highest: trial {trials.best.number}, {trials.best_text}")
    if trials.interval:
        axes.axhspan(*trials.interval, color=VALIDATION, alpha=0.12, linewidth=0, label="its 95% interval")
    axes.set_ylabel(LABELS["val_accuracy"])
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)


def slices(trials: points.Trials) -> Figure:
    """Draw the validation accuracy against each searched parameter."""
    columns = min(4, len(trials.parameters))
    rows = -(-len(trials.parameters) // columns)
    figure = Figure(figsize=(3 * columns, 2.8 * rows), dpi=DPI, layout="constrained")
    grid = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    for parameter, axes in zip(trials.parameters, grid, strict=False):
        _markers(axes, trials, parameter.values, markersize=5)
        best, marker = trials.points.index(trials.best), "x" if trials.best.pruned else "o"
        axes.plot(parameter.values[best], trials.best.best, marker, color=VALIDATION, markersize=5, zorder=4)
        _scale(axes, parameter)
        axes.set_xlabel(parameter.name)
        axes.grid(alpha=0.3)
    for axes in grid[len(trials.parameters) :]:
        axes.set_axis_off()
    figure.suptitle(title("slices", trials))
    return figure


def _scale(axes: Axes, parameter: points.Parameter) -> None:
    values = parameter.values
    if parameter.logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1,) if max(values) > 50 * min(values) else (1, 3)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif parameter.choices:
        axes.set_xticks(range(len(parameter.choices)), parameter.choices)
        axes.margins(x=0.2)
    elif all(float(value).is_integer() for value in values):
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def parallel_coordinates(trials: points.Trials) -> Figure:
    """Draw each trial as a line through its parameters to its validation accuracy."""
    heights = np.stack([axis.heights for axis in trials.axes], axis=1)  # (trials, axes)
    figure, axes = blank(1.5 * len(trials.axes) + 1, 5, left=0.3)
    heights = heights[np.argsort(heights[:, -1])]  # the best on top
    colors = colormaps["viridis"](heights[:, -1])
    axes.add_collection(LineCollection([list(enumerate(height)) for height in heights], colors=colors, alpha=0.8))
    for position, axis in enumerate(trials.axes):
        axes.axvline(position, color=GREY, linewidth=0.8)
        for height, offset, value in ((0, -12, min(axis.values)), (1, 4, max(axis.values))):
            text = axis.text(value)
            axes.annotate(text, (position, height), (0, offset), textcoords="offset points", ha="center")
    names = [axis.name.partition(".")[2] or axis.name for axis in trials.axes]
    axes.set_xticks(range(len(names)), names)
    axes.set(yticks=[], ylim=(-0.1, 1.1), title=title("parallel_coordinates", trials))
    return figure


def pareto_front(pareto: points.ParetoFront) -> Figure:
    """Draw the accuracy against every further objective, with the Pareto front in a darker colour."""
    planes = pareto.planes
    figure = Figure(figsize=(6.5 * len(planes), 5), dpi=DPI, layout="constrained")
    for axes, (name, places) in zip(figure.subplots(1, len(planes), squeeze=False).flat, planes.items(), strict=True):
        axes.plot(*zip(*places.values(), strict=True), "o", color=TRAIN, label="dominated")
        best = sorted(places[number] for number in pareto.front)
        axes.plot(*zip(*best, strict=True), "o", color=VALIDATION, label="Pareto front")
        if len(planes) == 1:
            axes.step(*zip(*best, strict=True), where="post", color=VALIDATION)
        for number in pareto.front:
            axes.annotate(str(number), places[number], (4, 5), textcoords="offset points", fontsize=8)
        axes.set(xlabel=LABELS.get(name, name), ylabel=LABELS["val_accuracy"])
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter("{x:,.0f}" if name == "parameters" else "{x:g}")
        axes.legend(loc="lower right")
        axes.grid(alpha=0.3)
    figure.suptitle(title("pareto_front", pareto))
    return figure


def timeline(times: Timeline) -> Figure:
    """Draw a bar for each trial: when it ran and on which worker. Dashed lines mark times without trials, left out."""
    workers = sorted({stretch.worker for stretch in times.stretches})
    height = 0.5 * len(workers)
    figure, axes = blank(9, height + 1.6, left=min(3.0, 0.4 + 0.08 * max(map(len, workers))), bottom=0.9)
    edge = 0.5 if len(times.stretches) <= MARKED else 0
    for name, color, rows in by_state(times.stretches):
        bars = [times.stretches[row] for row in rows]
        places = [workers.index(bar.worker) for bar in bars]
        lengths, starts = [bar.length for bar in bars], [bar.start for bar in bars]
        axes.barh(places, lengths, 0.7, starts, color=color, edgecolor="white", linewidth=edge, label=name)
    for bar in times.stretches if len(times.stretches) <= MARKED else ():
        middle = bar.start + bar.length / 2
        axes.text(middle, workers.index(bar.worker), str(bar.number), ha="center", va="center", fontsize=7)
    for cut in times.cuts:
        axes.axvline(cut, color=GREY, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(workers)), workers)
    axes.set_xlim(left=0)
    axes.set(ylim=(len(workers) - 0.4, -0.6), xlabel=times.label, title=title("timeline", times))
    axes.legend(loc="upper right", bbox_to_anchor=(1.0, -0.4 / (height + 0.3)), ncols=3, frameon=False)
    return figure


def importances(shares: Mapping[str, float]) -> Figure:
    """Draw the importance of each parameter for being among the best trials (PED-ANOVA, Watanabe et al. 2023)."""
    figure, axes = blank(7, 0.45 * len(shares) + 1, left=1.9)
    names = list(shares)[::-1]
    axes.bar_label(axes.barh(names, [shares[name] for name in names], color=TRAIN), fmt="%.2f", padding=3)
    axes.set(xlim=(0, 1.1), title=points.TITLES["importances"])
    return figure
