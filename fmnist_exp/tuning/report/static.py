"""The figures of a study as matplotlib draws them, for PNG files."""

from collections.abc import Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from fmnist_exp.figures.canvas import DPI, TRAIN, VALIDATION, WRONG, blank
from fmnist_exp.tuning.report import points
from fmnist_exp.tuning.report.points import GREY, LABELS, STATES, TITLES, by_state

NUMBERED = 60  # trials up to which the timeline shows their numbers


def learning_curves(trials: points.Trials) -> Figure:
    """Draw the validation accuracy of all trials by epoch."""
    figure, axes = blank(8, 5, left=0.85)
    for trial in trials.points:
        epochs, accuracies = list(trial.accuracies), list(trial.accuracies.values())
        color, zorder = (VALIDATION, 3) if trial is trials.best else (trial.color, 2 - trial.pruned)
        axes.plot(epochs, accuracies, color=color, zorder=zorder, marker=".")
        if trial.pruned:
            axes.plot(epochs[-1], accuracies[-1], "x", color=WRONG)
    axes.set(xlabel="epoch", title=TITLES["learning_curves"])
    _finish(axes, trials, WRONG)
    return figure


def history(trials: points.Trials) -> Figure:
    """Draw the validation accuracy of each trial in order, and the highest so far."""
    figure, axes = blank(8, 5, left=0.85)
    for trial in trials.points:
        axes.plot(trial.number, trial.best, "x" if trial.pruned else "o", color=trial.color)
    axes.step(*trials.best_so_far, where="post", color=VALIDATION)
    axes.set(xlabel="trial", title=TITLES["history"])
    _finish(axes, trials, STATES["PRUNED"][1])
    return figure


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
        for value, trial in zip(parameter.values, trials.points, strict=True):
            color = VALIDATION if trial is trials.best else trial.color
            marker = "x" if trial.pruned else "o"
            axes.plot(value, trial.best, marker, color=color, markersize=5, zorder=3 - trial.pruned)
        _scale(axes, parameter)
        axes.set_xlabel(parameter.name)
        axes.grid(alpha=0.3)
    for axes in grid[len(trials.parameters) :]:
        axes.set_axis_off()
    figure.suptitle(TITLES["slices"])
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
    for height in heights[np.argsort(heights[:, -1])]:  # the best on top
        axes.plot(range(len(height)), height, color=colormaps["viridis"](height[-1]), alpha=0.8)
    for position, axis in enumerate(trials.axes):
        axes.axvline(position, color=GREY, linewidth=0.8)
        for height, offset, value in ((0, -12, min(axis.values)), (1, 4, max(axis.values))):
            text = axis.text(value)
            axes.annotate(text, (position, height), (0, offset), textcoords="offset points", ha="center")
    names = [axis.name.partition(".")[2] or axis.name for axis in trials.axes]
    axes.set_xticks(range(len(names)), names)
    axes.set(yticks=[], ylim=(-0.1, 1.1), title=TITLES["parallel_coordinates"])
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
    figure.suptitle(TITLES["pareto_front"])
    return figure


def timeline(times: points.Timeline) -> Figure:
    """Draw a bar for each trial: when it ran and on which worker. Dashed lines mark times without trials, left out."""
    workers = sorted({stretch.worker for stretch in times.stretches})
    height = 0.5 * len(workers)
    figure, axes = blank(9, height + 1.6, left=min(3.0, 0.4 + 0.08 * max(map(len, workers))), bottom=0.9)
    for name, color, rows in by_state(times.stretches):
        bars = [times.stretches[row] for row in rows]
        places = [workers.index(bar.worker) for bar in bars]
        lengths, starts = [bar.length for bar in bars], [bar.start for bar in bars]
        axes.barh(places, lengths, 0.7, starts, color=color, edgecolor="white", linewidth=0.5, label=name)
    for bar in times.stretches if len(times.stretches) <= NUMBERED else ():
        middle = bar.start + bar.length / 2
        axes.text(middle, workers.index(bar.worker), str(bar.number), ha="center", va="center", fontsize=7)
    for cut in times.cuts:
        axes.axvline(cut, color=GREY, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(workers)), workers)
    axes.set_xlim(left=0)
    axes.set(ylim=(len(workers) - 0.4, -0.6), xlabel=times.label, title=TITLES["timeline"])
    axes.legend(loc="upper right", bbox_to_anchor=(1.0, -0.4 / (height + 0.3)), ncols=3, frameon=False)
    return figure


def importances(shares: Mapping[str, float]) -> Figure:
    """Draw the importance of each parameter for being among the best trials (PED-ANOVA, Watanabe et al. 2023)."""
    figure, axes = blank(7, 0.45 * len(shares) + 1, left=1.9)
    names = list(shares)[::-1]
    axes.bar_label(axes.barh(names, [shares[name] for name in names], color=TRAIN), fmt="%.2f", padding=3)
    axes.set(xlim=(0, 1.1), title=TITLES["importances"])
    return figure
