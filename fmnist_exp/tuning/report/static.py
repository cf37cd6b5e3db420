"""The figures of a study as matplotlib draws them, for PNG files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from fmnist_exp.figures.canvas import DPI, TRAIN, VALIDATION, WRONG, blank
from fmnist_exp.tuning.report.points import LABELS, STATES, TITLES, Parameter, ParetoFront, Timeline, TrialPoint, Trials

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PRUNED = STATES["PRUNED"][1]
NUMBERED = 60  # trials up to which the timeline shows their numbers


def learning_curves(trials: Trials) -> Figure:
    """Draw the validation accuracy of all trials by epoch."""
    figure, axes = blank(8, 5, left=0.85)
    for trial in trials.points:
        epochs, accuracies = list(trial.accuracies), list(trial.accuracies.values())
        color, zorder = (VALIDATION, 3) if trial is trials.best else (trial.color, 2 - trial.pruned)
        axes.plot(epochs, accuracies, color=color, zorder=zorder, marker=".")
        if trial.pruned:
            axes.plot(epochs[-1], accuracies[-1], "x", color=WRONG)
    axes.set(xlabel="epoch", title=TITLES["learning_curves"])
    _finish(axes, trials.best, WRONG)
    return figure


def history(trials: Trials) -> Figure:
    """Draw the best validation accuracy of each trial in order, and the best so far."""
    figure, axes = blank(8, 5, left=0.85)
    for trial in trials.points:
        axes.plot(trial.number, trial.best, "x" if trial.pruned else "o", color=trial.color)
    numbers = [trial.number for trial in trials.points]
    axes.step(numbers, trials.best_so_far, where="post", color=VALIDATION)
    axes.set(xlabel="trial", title=TITLES["history"])
    _finish(axes, trials.best)
    return figure


def slices(trials: Trials) -> Figure:
    """Draw the validation accuracy against each searched parameter."""
    columns = min(4, len(trials.parameters))
    rows = -(-len(trials.parameters) // columns)
    figure = Figure(figsize=(3 * columns, 2.8 * rows), dpi=DPI, layout="constrained")
    grid = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    best = trials.best
    for parameter, axes in zip(trials.parameters, grid, strict=False):
        for value, trial in zip(parameter.values, trials.points, strict=True):
            color = VALIDATION if trial is best else trial.color
            marker = "x" if trial.pruned else "o"
            axes.plot(value, trial.best, marker, color=color, markersize=5, zorder=3 - trial.pruned)
        _scale(axes, parameter)
        axes.set_xlabel(parameter.name)
        axes.grid(alpha=0.3)
    for axes in grid[len(trials.parameters) :]:
        axes.set_axis_off()
    figure.suptitle(TITLES["slices"])
    return figure


def _scale(axes: Axes, parameter: Parameter) -> None:
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


def parallel_coordinates(trials: Trials) -> Figure:
    """Draw each trial as a line through its parameters to its validation accuracy."""
    heights = np.stack([axis.heights for axis in trials.axes], axis=1)  # (trials, axes)
    names = [axis.name for axis in trials.axes]
    figure, axes = blank(1.5 * len(names) + 1, 5, left=0.3)
    for height in heights[np.argsort(heights[:, -1])]:  # the best on top
        axes.plot(range(len(names)), height, color=colormaps["viridis"](height[-1]), alpha=0.8)
    for position, axis in enumerate(trials.axes):
        axes.axvline(position, color="#555555", linewidth=0.8)
        for height, offset, value in ((0, -12, min(axis.values)), (1, 4, max(axis.values))):
            text = axis.text(value)
            axes.annotate(text, (position, height), (0, offset), textcoords="offset points", ha="center")
    axes.set_xticks(range(len(names)), [name.partition(".")[2] or name for name in names])
    axes.set_yticks([])
    axes.set_ylim(-0.1, 1.1)
    axes.set_title(TITLES["parallel_coordinates"])
    return figure


def pareto_front(pareto: ParetoFront) -> Figure:
    """Draw the accuracy against each other objective, with the trials of the front in a darker colour."""
    accuracy, *others = next(iter(pareto.measured.values()))
    figure = Figure(figsize=(6.5 * len(others), 5), dpi=DPI, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(others), squeeze=False).flat, others, strict=True):
        points = {number: (values[name], values[accuracy]) for number, values in pareto.measured.items()}
        axes.plot(*zip(*points.values(), strict=True), "o", color=TRAIN, label="dominated")
        best = sorted(points[number] for number in pareto.front)
        axes.plot(*zip(*best, strict=True), "o", color=VALIDATION, label="Pareto front")
        if len(others) == 1:
            axes.step(*zip(*best, strict=True), where="post", color=VALIDATION)
        for number in pareto.front:
            axes.annotate(str(number), points[number], (4, 5), textcoords="offset points", fontsize=8)
        axes.set(xlabel=LABELS.get(name, name), ylabel=LABELS[accuracy])
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter("{x:,.0f}" if name == "parameters" else "{x:g}")
        axes.legend(loc="lower right")
        axes.grid(alpha=0.3)
    figure.suptitle(TITLES["pareto_front"])
    return figure


def timeline(times: Timeline) -> Figure:
    """Draw which worker ran which trial when; a dashed line stands where time without any trial was left out."""
    workers = sorted({stretch.worker for stretch in times.stretches})
    height = 0.5 * len(workers)
    figure, axes = blank(9, height + 1.6, left=min(3.0, 0.4 + 0.08 * max(map(len, workers))), bottom=0.9)
    for state in [state for state in STATES if any(stretch.state == state for stretch in times.stretches)]:
        word, color = STATES[state]
        bars = [stretch for stretch in times.stretches if stretch.state == state]
        rows = [workers.index(stretch.worker) for stretch in bars]
        lefts, widths = [bar.start / 60 for bar in bars], [(bar.end - bar.start) / 60 for bar in bars]
        axes.barh(rows, widths, 0.7, lefts, color=color, edgecolor="white", linewidth=0.5, label=word)
    for stretch in times.stretches if len(times.stretches) <= NUMBERED else ():
        middle = (stretch.start + stretch.end) / 120
        axes.text(middle, workers.index(stretch.worker), str(stretch.number), ha="center", va="center", fontsize=7)
    for cut in times.cuts:
        axes.axvline(cut / 60, color="#555555", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(workers)), workers)
    axes.set_ylim(len(workers) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set(xlabel="minutes" + (", pauses left out" if times.cuts else ""), title=TITLES["timeline"])
    axes.legend(loc="upper right", bbox_to_anchor=(1.0, -0.4 / (height + 0.3)), ncols=3, frameon=False)
    return figure


def importances(shares: Mapping[str, float]) -> Figure:
    """Draw the share of each parameter in what the best trials have in common (PED-ANOVA, Watanabe et al. 2023)."""
    figure, axes = blank(7, 0.45 * len(shares) + 1, left=1.9)
    names = list(shares)[::-1]
    bars = axes.barh(names, [shares[name] for name in names], color=TRAIN)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlim(0, 1.1)
    axes.set_title(TITLES["importances"])
    return figure


def _finish(axes: Axes, best: TrialPoint, cross: str = PRUNED) -> None:
    """Add what the learning curves and the history have in common: whole numbers below, the legend and the grid."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.plot([], [], "o", color=TRAIN, label="complete")
    axes.plot([], [], "x", color=cross, label="pruned")
    axes.plot([], [], color=VALIDATION, label=f"best: trial {best.number}, {best.best:.2%}")
    axes.set_ylabel(LABELS["val_accuracy"])
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)


FIGURES: dict[str, Callable[..., Figure]] = {
    draw.__name__: draw
    for draw in (history, learning_curves, slices, parallel_coordinates, importances, timeline, pareto_front)
}
