"""The figure that compares a challenger with a champion on the same images."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fmnist_exp.data.formats import CLASS_NAMES
from fmnist_exp.evaluation import intervals
from fmnist_exp.evaluation.comparison import Comparison
from fmnist_exp.figures.canvas import DPI, RIGHT, WRONG

SHOWN, COLUMNS = 21, 7  # images won, and as many lost; images in a row


def comparison(compared: Comparison, title: str) -> Figure:
    """Draw the images that only one of the two models predicts correctly: as bars by class, and some as images."""
    numbers = compared.numbers()
    figure = Figure(figsize=(11, 6.2), dpi=DPI, layout="constrained")
    bars, won, lost = figure.subplot_mosaic([["bars", "won"], ["bars", "lost"]], width_ratios=(1, 1.5)).values()
    _bars_per_class(bars, numbers["classes"])
    _pictures(won, compared, compared.won, "only the challenger is right", RIGHT)
    _pictures(lost, compared, compared.lost, "only the champion is right", WRONG)
    accuracies = [intervals.text(numbers[f"{who}_accuracy"], numbers["images"]) for who in ("challenger", "champion")]
    figure.suptitle(
        f"{title} on {numbers['images']:,} images of the gate:"
        f" {accuracies[0]} and {accuracies[1]}, p = {numbers['p_value']:.2g}"
    )
    return figure


def _bars_per_class(axes: Axes, classes: Mapping[str, Mapping[str, float]]) -> None:
    rows = np.arange(len(classes))
    won = np.array([counts["won"] for counts in classes.values()])
    lost = np.array([counts["lost"] for counts in classes.values()])
    axes.barh(rows, won, color=RIGHT, height=0.7)
    axes.barh(rows, -lost, color=WRONG, height=0.7)
    for row, (wins, losses) in enumerate(zip(won, lost, strict=True)):
        axes.text(wins, row, f" {wins:.0f}", va="center", ha="left", fontsize=8)
        axes.text(-losses, row, f"{losses:.0f} ", va="center", ha="right", fontsize=8)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(rows, list(classes))
    axes.invert_yaxis()
    reach = 1.25 * max(1.0, won.max(), lost.max())
    axes.set(xlim=(-reach, reach), xticks=[], xlabel="← champion wins      challenger wins →")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title("Images that one of them has right, per class", fontsize=10)


def _pictures(axes: Axes, compared: Comparison, chosen: NDArray[np.bool_], title: str, color: str) -> None:
    """Draw some of the chosen images, spread evenly over all of them, above the true class and the wrong one."""
    indices = np.flatnonzero(chosen)
    shown = indices[np.linspace(0, len(indices) - 1, min(SHOWN, len(indices))).round().astype(int)]
    height, width = 46, 42  # pixels of a cell
    canvas = np.full((SHOWN // COLUMNS * height, COLUMNS * width), 255, np.uint8)
    some = f", {len(shown)} of them" if len(indices) > len(shown) else ""
    axes.set_axis_off()
    axes.set_title(f"{title}: {len(indices):,}{some}", fontsize=10)
    labels = compared.split.labels
    for position, index in enumerate(shown):
        top, left = position // COLUMNS * height, position % COLUMNS * width
        canvas[top : top + 28, left + 7 : left + 35] = 255 - compared.split.images[index]
        wrong = next(x[index] for x in (compared.challenger, compared.champion) if x[index] != labels[index])
        axes.text(left + 21, top + 33, CLASS_NAMES[labels[index]], ha="center", va="center", fontsize=7)
        axes.text(left + 21, top + 39, f"not {CLASS_NAMES[wrong]}", ha="center", va="center", fontsize=7, color=color)
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=255)
