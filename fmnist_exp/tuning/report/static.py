"""A study's figures, from plain numbers. Pruned trials are in all of them: they are findings too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from fmnist_exp.figures.canvas import DPI, TRAIN, VALIDATION, WRONG, blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

from fmnist_exp.tuning.report.points import Timeline, TrialPoints

PRUNED = "#b9b9b9"
STATES = {"COMPLETE": ("complete", TRAIN), "PRUNED": ("pruned", PRUNED), "FAIL": ("failed", WRONG)}
WORDS = {"val_accuracy": "validation accuracy", "prediction_seconds": "seconds per prediction, one image"}
NUMBERED = 60  # trials up to which the timeline has their numbers


def learning_curves(trials: Sequence[TrialPoints]) -> Figure:
    """Validation accuracy by epoch of all trials."""
    figure, axes = blank(8, 5, left=0.85)
    best = _best(trials)
    for trial in trials:
        epochs, accuracies = list(trial.accuracies), list(trial.accuracies.values())
        color = VALIDATION if trial is best else PRUNED if trial.pruned else TRAIN
        axes.plot(epochs, accuracies, color=color, zorder=3 if trial is best else 2 - trial.pruned, marker=".")
        if trial.pruned:
            axes.plot(epochs[-1], accuracies[-1], "x", color=WRONG)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.set_title("Learning curves of all trials")
    _legend(axes, best, WRONG)
    return figure


def history(trials: Sequence[TrialPoints]) -> Figure:
    """Best validation accuracy of each trial in order, and the best so far."""
    figure, axes = blank(8, 5, left=0.85)
    for trial in trials:
        axes.plot(trial.number, trial.best, "x" if trial.pruned else "o", color=PRUNED if trial.pruned else TRAIN)
    if trials:
        so_far = np.maximum.accumulate([trial.best for trial in trials])
        axes.step([trial.number for trial in trials], so_far, where="post", color=VALIDATION)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("trial")
    axes.set_title("Validation accuracy by trial, and the best so far")
    _legend(axes, _best(trials))
    return figure


def slices(trials: Sequence[TrialPoints], logarithmic: frozenset[str], choices: Mapping[str, Sequence[str]]) -> Figure:
    """Validation accuracy against each searched parameter; `choices` are the words of those that are no numbers."""
    names = sorted({name for trial in trials for name in trial.parameters})
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3 * columns, 2.8 * rows), dpi=DPI, layout="constrained")
    grid = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
    best = _best(trials)
    for name, axes in zip(names, grid, strict=False):
        values = [trial.parameters[name] for trial in trials]
        for trial in trials:
            color = VALIDATION if trial is best else PRUNED if trial.pruned else TRAIN
            marker = "x" if trial.pruned else "o"
            axes.plot(trial.parameters[name], trial.best, marker, color=color, markersize=5, zorder=3 - trial.pruned)
        if name in logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1,) if max(values) > 50 * min(values) else (1, 3)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        elif name in choices:
            axes.set_xticks(range(len(choices[name])), choices[name])
            axes.margins(x=0.2)
        elif all(float(value).is_integer() for value in values):
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    figure.suptitle("Validation accuracy by parameter (× pruned)")
    return figure


def parallel_coordinates(
    trials: Sequence[TrialPoints], logarithmic: frozenset[str], choices: Mapping[str, Sequence[str]]
) -> Figure:
    """A line per trial through its parameters to its validation accuracy."""
    names = [*sorted({name for trial in trials for name in trial.parameters}), "val_accuracy"]
    table = np.array([[*(trial.parameters[name] for name in names[:-1]), trial.best] for trial in trials])
    shown = np.where([name in logarithmic for name in names], np.log10(np.maximum(table, 1e-12)), table)
    low, high = shown.min(axis=0), shown.max(axis=0)
    heights = (shown - low) / np.where(high > low, high - low, 1)
    figure, axes = blank(1.5 * len(names) + 1, 5, left=0.3)
    for height in heights[np.argsort(heights[:, -1])]:  # the best on top
        axes.plot(range(len(names)), height, color=colormaps["viridis"](height[-1]), alpha=0.8)
    for position, name in enumerate(names):
        axes.axvline(position, color="#555555", linewidth=0.8)
        for place, row in ((0.0, low), (1.0, high)):
            value = 10 ** row[position] if name in logarithmic else row[position]
            text = choices[name][round(value)] if name in choices else f"{value:.3g}"
            axes.annotate(text, (position, place), (0, 4 if place else -12), textcoords="offset points", ha="center")
    axes.set_xticks(range(len(names)), [name.partition(".")[2] or name for name in names])
    axes.set_yticks([])
    axes.set_ylim(-0.1, 1.1)
    axes.set_title("Trials through their parameters; yellow is best")
    return figure


def pareto_front(measured: Mapping[int, Mapping[str, float]], front: Sequence[int]) -> Figure:
    """Accuracy against each other objective; those trials in dark that no other beats in all.

    Args:
        measured: of each complete trial, by its number, the objectives by name, accuracy first.
        front: numbers of the trials on the front.
    """
    accuracy, *others = next(iter(measured.values()))
    figure = Figure(figsize=(6.5 * len(others), 5), dpi=DPI, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(others), squeeze=False).flat, others, strict=True):
        places = {number: (values[name], values[accuracy]) for number, values in measured.items()}
        axes.plot(*zip(*places.values(), strict=True), "o", color=TRAIN, label="dominated")
        best = sorted(places[number] for number in front)
        axes.plot(*zip(*best, strict=True), "o", color=VALIDATION, label="Pareto front")
        if len(others) == 1:
            axes.step(*zip(*best, strict=True), where="post", color=VALIDATION)
        for number in front:
            axes.annotate(str(number), places[number], (4, 5), textcoords="offset points", fontsize=8)
        axes.set(xlabel=WORDS.get(name, name), ylabel=WORDS[accuracy])
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter("{x:,.0f}" if name == "parameters" else "{x:g}")
        axes.legend(loc="lower right")
        axes.grid(alpha=0.3)
    figure.suptitle("Pareto front, with the trials' numbers")
    return figure


def timeline(times: Timeline) -> Figure:
    """Which worker ran which trial when; a dashed line where time without any trial was left out."""
    workers = sorted({stretch.worker for stretch in times.stretches})
    height = 0.5 * len(workers)
    figure, axes = blank(9, height + 1.6, left=min(3.0, 0.4 + 0.08 * max(map(len, workers))), bottom=0.9)
    for state in [state for state in STATES if any(stretch.state == state for stretch in times.stretches)]:
        word, color = STATES[state]
        own = [stretch for stretch in times.stretches if stretch.state == state]
        rows = [workers.index(stretch.worker) for stretch in own]
        lefts, widths = [s.start / 60 for s in own], [(s.end - s.start) / 60 for s in own]
        axes.barh(rows, widths, 0.7, lefts, color=color, edgecolor="white", linewidth=0.5, label=word)
    for stretch in times.stretches if len(times.stretches) <= NUMBERED else ():
        middle = (stretch.start + stretch.end) / 120
        axes.text(middle, workers.index(stretch.worker), str(stretch.number), ha="center", va="center", fontsize=7)
    for cut in times.cuts:
        axes.axvline(cut / 60, color="#555555", linestyle="--", linewidth=1)
    axes.set_yticks(range(len(workers)), workers)
    axes.set_ylim(len(workers) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set_xlabel("minutes" + (", pauses left out" if times.cuts else ""))
    axes.set_title("Trials by worker")
    axes.legend(loc="upper right", bbox_to_anchor=(1.0, -0.4 / (height + 0.3)), ncols=3, frameon=False)
    return figure


def importances(shares: Mapping[str, float]) -> Figure:
    """Share of each parameter in what the best trials have in common (PED-ANOVA, Watanabe et al. 2023)."""
    figure, axes = blank(7, 0.45 * len(shares) + 1, left=1.9)
    names = list(shares)[::-1]
    bars = axes.barh(names, [shares[name] for name in names], color=TRAIN)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlim(0, 1.1)
    axes.set_title("Importance of each parameter for the validation accuracy")
    return figure


def _best(trials: Sequence[TrialPoints]) -> TrialPoints | None:
    """The winner: a pruned trial has a model too."""
    return max(trials, key=lambda trial: (trial.best, not trial.pruned), default=None)


def _legend(axes: Axes, best: TrialPoints | None, cross: str = PRUNED) -> None:
    axes.plot([], [], "o", color=TRAIN, label="complete")
    axes.plot([], [], "x", color=cross, label="pruned")
    if best:
        axes.plot([], [], color=VALIDATION, label=f"best: trial {best.number}, {best.best:.2%}")
    axes.set_ylabel("validation accuracy")
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
