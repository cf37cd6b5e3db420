"""A study's figures, from plain numbers. Pruned trials are in all of them: they are findings too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from fmnist_exp.figures import DPI, TRAIN, VALIDATION, WRONG, blank

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PRUNED = "#b9b9b9"


@dataclass(frozen=True)
class TrialPoints:
    """What the figures show of one trial: `accuracies` is validation accuracy by epoch."""

    number: int
    pruned: bool
    accuracies: Mapping[int, float]
    parameters: Mapping[str, float]

    @property
    def best(self) -> float:
        """The highest validation accuracy of any epoch."""
        return max(self.accuracies.values())


def learning_curves(trials: Sequence[TrialPoints]) -> Figure:
    """Validation accuracy by epoch of all trials."""
    figure, axes = blank(8, 5)
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
    _legend(axes, best)
    return figure


def history(trials: Sequence[TrialPoints]) -> Figure:
    """Best validation accuracy of each trial in order, and the best so far."""
    figure, axes = blank(8, 5)
    for trial in trials:
        axes.plot(trial.number, trial.best, "x" if trial.pruned else "o", color=PRUNED if trial.pruned else TRAIN)
    complete = [trial for trial in trials if not trial.pruned]
    if complete:
        so_far = np.maximum.accumulate([trial.best for trial in complete])
        axes.step([trial.number for trial in complete], so_far, where="post", color=VALIDATION)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("trial")
    axes.set_title("Validation accuracy by trial, and the best so far")
    _legend(axes, _best(trials))
    return figure


def slices(trials: Sequence[TrialPoints], logarithmic: frozenset[str]) -> Figure:
    """Validation accuracy against each searched parameter."""
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
        elif all(float(value).is_integer() for value in values):
            axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
    for axes in grid[len(names) :]:
        axes.set_axis_off()
    figure.suptitle("Validation accuracy by parameter (× pruned)")
    return figure


def parallel_coordinates(trials: Sequence[TrialPoints], logarithmic: frozenset[str]) -> Figure:
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
            axes.annotate(
                f"{value:.3g}", (position, place), (0, 4 if place else -12), textcoords="offset points", ha="center"
            )
    axes.set_xticks(range(len(names)), [name.partition(".")[2] or name for name in names])
    axes.set_yticks([])
    axes.set_ylim(-0.1, 1.1)
    axes.set_title("Trials through their parameters; yellow is best")
    return figure


def importances(shares: Mapping[str, float]) -> Figure:
    """Share of each parameter in the variance of the result (fANOVA)."""
    figure, axes = blank(7, 0.45 * len(shares) + 1, left=1.9)
    names = list(shares)[::-1]
    bars = axes.barh(names, [shares[name] for name in names], color=TRAIN)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlim(0, 1.1)
    axes.set_title("Importance of each parameter for the validation accuracy")
    return figure


def _best(trials: Sequence[TrialPoints]) -> TrialPoints | None:
    complete = [trial for trial in trials if not trial.pruned] or trials
    return max(complete, key=lambda trial: trial.best, default=None)


def _legend(axes: Axes, best: TrialPoints | None) -> None:
    axes.plot([], [], "o", color=TRAIN, label="complete")
    axes.plot([], [], "x", color=PRUNED, label="pruned")
    if best:
        axes.plot([], [], color=VALIDATION, label=f"best: trial {best.number}, {best.best:.2%}")
    axes.set_ylabel("validation accuracy")
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
