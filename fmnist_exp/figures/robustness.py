"""The figures of a robustness test: accuracy under corruptions, corrupted images, and calibration."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from fmnist_exp.evaluation.calibration import Reliability
from fmnist_exp.evaluation.corruptions import SEVERITIES
from fmnist_exp.evaluation.robustness import Level
from fmnist_exp.figures.canvas import DPI, TRAIN, VALIDATION, WRONG, blank

GREY = "#7a8b99"
PANELS = 4  # in a row


def robustness(clean: Level, corrupted: Mapping[str, Sequence[Level]]) -> Figure:
    """Draw accuracy and mean confidence by severity, one panel for each corruption; `clean` is severity 0."""
    rows = -(-len(corrupted) // PANELS)
    figure = Figure(figsize=(11, 2.7 * rows + 0.6), dpi=DPI, layout="constrained")
    panels = figure.subplots(rows, PANELS, sharex=True, sharey=True, squeeze=False).ravel()
    steps = [0, *SEVERITIES]
    for axes, (name, levels) in zip(panels, corrupted.items(), strict=False):
        accuracy = [level.accuracy for level in (clean, *levels)]
        confidence = [level.confidence for level in (clean, *levels)]
        axes.fill_between(steps, accuracy, confidence, color=WRONG, alpha=0.12, linewidth=0)
        axes.plot(steps, confidence, color=WRONG, linestyle="--", linewidth=1.2, label="mean confidence")
        axes.plot(steps, accuracy, color=VALIDATION, marker="o", markersize=4, label="accuracy")
        last, below = accuracy[-1], accuracy[-1] <= confidence[-1]
        offset = (4, -14 if below else 7)  # points; away from the other curve
        style = {"fontsize": 8, "color": VALIDATION, "ha": "right"}
        axes.annotate(f"{last:.0%}", (steps[-1], last), offset, textcoords="offset points", **style)
        axes.set_title(name, fontsize=10)
        axes.set_xticks(steps, ["clean", *map(str, SEVERITIES)])
        axes.tick_params(labelbottom=True, labelsize=8)
        axes.grid(alpha=0.3)
    for axes in panels[len(corrupted) :]:
        axes.set_axis_off()
    panels[0].set_ylim(-0.08, 1.02)
    panels[0].yaxis.set_major_formatter(PercentFormatter(1))
    figure.supxlabel("severity", fontsize=10)
    figure.suptitle("Test images under eight corruptions" if len(corrupted) == 8 else "Test images under corruptions")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower right", ncols=2, frameon=False, fontsize=9)
    return figure


def corrupted_samples(rows: Mapping[str, Sequence[NDArray[np.uint8]]]) -> Figure:
    """Draw one corruption in each row: the clean image (28, 28), then one corrupted copy for each severity."""
    figure, axes = blank(6, 0.72 * len(rows) + 0.7)
    gap = 2  # pixels between images
    cell = 28 + gap
    canvas = np.full((len(rows) * cell - gap, (len(SEVERITIES) + 1) * cell - gap), 255, np.uint8)
    for row, images in enumerate(rows.values()):
        for column, image in enumerate(images):
            canvas[row * cell : row * cell + 28, column * cell : column * cell + 28] = 255 - image
    axes.imshow(canvas, cmap="gray", vmin=0, vmax=255)
    axes.set_yticks(np.arange(len(rows)) * cell + 14, list(rows))
    axes.set_xticks(np.arange(len(SEVERITIES) + 1) * cell + 14, ["clean", *map(str, SEVERITIES)])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title("One test image at each severity (negatives)")
    return figure


def reliability(panels: Mapping[str, tuple[Reliability, float]]) -> Figure:
    """Draw accuracy by confidence, and the share of predictions below it, in a panel for each title."""
    figure = Figure(figsize=(4.6 * len(panels), 5), dpi=DPI, layout="constrained")
    grid = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1))
    for (upper, lower), (title, (bins, error)) in zip(grid.T, panels.items(), strict=True):
        _reliability_panel(upper, bins)
        upper.set_title(f"{title}: ECE {error:.2%}", fontsize=10)
        edges = np.linspace(0, 1, len(bins.count) + 1)
        shares = bins.count / bins.count.sum()
        lower.bar(edges[:-1], shares, width=edges[1], align="edge", color=GREY, edgecolor="white")
        lower.yaxis.set_major_formatter(PercentFormatter(1))
        lower.set_xlabel("confidence")
        lower.grid(alpha=0.3)
        lower.set_axisbelow(True)
    grid[0, 0].set_ylabel("accuracy")
    grid[1, 0].set_ylabel("answers")
    grid[0, 0].legend(loc="upper left", fontsize=9)
    return figure


def _reliability_panel(axes: Axes, bins: Reliability) -> None:
    width, full = 1 / len(bins.count), np.flatnonzero(bins.count)
    left, accuracy, confidence = full * width, bins.accuracy[full], bins.confidence[full]
    low, gap = np.minimum(accuracy, confidence), np.abs(accuracy - confidence)
    axes.bar(left, accuracy, width, align="edge", edgecolor="white", color=TRAIN, label="accuracy")
    axes.bar(left, gap, width, low, align="edge", edgecolor="white", color=WRONG, alpha=0.35, label="gap to confidence")
    axes.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=1)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
