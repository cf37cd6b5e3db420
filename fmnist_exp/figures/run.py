"""From numbers to matplotlib figures. No pyplot: nothing global, nothing to close, safe in any thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fmnist_exp.config.schema import AugmentationConfig
from fmnist_exp.data.augment import augment, cutmix, mixup
from fmnist_exp.data.formats import CLASS_NAMES
from fmnist_exp.evaluation.metrics import Evaluation
from fmnist_exp.training.events import Epoch

if TYPE_CHECKING:
    pass

from fmnist_exp.figures.canvas import DPI, RIGHT, TRAIN, VALIDATION, WRONG, blank

Images = NDArray[np.uint8]
Probabilities = NDArray[np.floating[Any]]
VARIANTS = 8  # of an augmented image


def samples(images: Images, labels: NDArray[np.uint8]) -> Figure:
    """Ten images of each class, a class a row."""
    sheet = np.zeros((len(CLASS_NAMES), 10, *images.shape[1:]), np.uint8)  # a class with fewer images leaves gaps
    for label, row in enumerate(sheet):
        chosen = images[np.flatnonzero(labels == label)[:10]]
        row[: len(chosen)] = chosen
    figure, axes = blank(6.4, 5.5, left=1.1, bottom=0.1)
    axes.imshow(np.block([list(row) for row in sheet]), cmap="gray_r")
    axes.set_yticks(np.arange(len(CLASS_NAMES)) * 28 + 14, CLASS_NAMES)
    axes.set_xticks([])
    axes.set_title("Training images, ten of each class")
    return figure


def augmented(images: Images, labels: NDArray[np.uint8], config: AugmentationConfig, seed: int) -> Figure:
    """One image of each class a row: as it is, changed eight times, and mixed twice with another if mixing is on."""
    known, first = np.unique(labels, return_index=True)
    originals = images[first]
    random = np.random.default_rng(seed)
    changed = [augment(originals, config, random) for _ in range(VARIANTS)]
    mixed = _mixed(originals, known, config, random)
    cell, wide = 32, 84  # pixels: a picture's place, and that of a mixed one with its words beside it
    lefts = [0, *(cell * place + 12 for place in range(1, VARIANTS + 1))]
    lefts += [cell * (VARIANTS + 1) + 24 + wide * place for place in range(len(mixed))]
    canvas = np.zeros((cell * len(known), lefts[-1] + (wide if mixed else cell)), np.uint8)
    for left, column in zip(lefts, [originals, *changed, *(pictures for pictures, _ in mixed)], strict=True):
        for row, image in enumerate(column):
            canvas[row * cell + 2 : row * cell + 30, left + 2 : left + 30] = image
    height, width = canvas.shape
    figure, axes = blank(width / 60 + 1.3, height / 60 + 0.6, left=1.1, bottom=0.2)
    axes.imshow(canvas, cmap="gray_r", vmin=0, vmax=255)
    for left, (_, captions) in zip(lefts[VARIANTS + 1 :], mixed, strict=True):
        for row, caption in enumerate(captions):
            axes.text(left + 32, row * cell + 16, caption, va="center", fontsize=6)
    axes.set_yticks(np.arange(len(known)) * cell + 16, [CLASS_NAMES[label] for label in known])
    axes.set_xticks([])
    axes.set_title(_augmentation(config), loc="left", fontsize=8)
    return figure


def _mixed(
    originals: Images, labels: NDArray[np.uint8], config: AugmentationConfig, random: np.random.Generator
) -> list[tuple[Images, list[str]]]:
    """Two columns of mixed images with what their labels gain, or none: one of each kind where both are on."""
    columns = []
    one_hot = np.eye(len(CLASS_NAMES), dtype=np.float32)[labels]
    kinds = [(change, alpha) for change, alpha in ((mixup, config.mixup), (cutmix, config.cutmix)) if alpha]
    for change, alpha in (kinds * 2)[:2]:
        pictures, shares = change(augment(originals, config, random), one_hot, alpha, random)
        other = shares * (1 - one_hot)  # the row says the image's own class
        partner = zip(other.max(axis=1), other.argmax(axis=1), strict=True)
        columns.append((pictures, [f"+ {share:.0%} {CLASS_NAMES[label]}" if share else "" for share, label in partner]))
    return columns


def _augmentation(config: AugmentationConfig) -> str:
    """What is on, by the names of the fields."""
    on = [name if value is True else f"{name} {value:g}" for name, value in config.transforms().items()]
    on += [f"{name} {alpha:g}" for name, alpha in (("mixup", config.mixup), ("cutmix", config.cutmix)) if alpha]
    number = "one copy" if config.copies == 1 else f"{config.copies} copies"
    made = f", in {number} made beforehand" if config.copies else ""
    return f"Left as it is, right as it is trained on{made}\n{', '.join(on) or 'no augmentation'}"


def curves(epochs: Sequence[Epoch], quantity: str, best: Epoch) -> Figure:
    """`quantity` ("loss" or "accuracy") of training and validation by epoch, the kept epoch marked."""
    figure, axes = blank(6.4, 4)
    numbers = [epoch.number for epoch in epochs]
    splits = [("train", "training", TRAIN), ("val", "validation", VALIDATION)]
    for prefix, label, color in [split for split in splits if f"{split[0]}_{quantity}" in best.metrics]:
        values = [epoch.metrics[f"{prefix}_{quantity}"] for epoch in epochs]
        axes.plot(numbers, values, color=color, label=label, marker="o", markersize=4)
    value = best.metrics.get(f"val_{quantity}", best.metrics[f"train_{quantity}"])
    axes.plot(best.number, value, "o", color=VALIDATION, markersize=10, fillstyle="none")
    axes.annotate(f"kept: {value:.4f}", (best.number, value), xytext=(0, 12), textcoords="offset points", ha="center")
    axes.margins(y=0.15)
    axes.set_xlim(0.5, len(epochs) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.set_ylabel("cross-entropy and penalties" if quantity == "loss" else quantity)
    axes.set_title(f"{quantity.capitalize()} by epoch")
    axes.legend()
    axes.grid(alpha=0.3)
    return figure


def confusion_matrix(evaluation: Evaluation) -> Figure:
    """Counts, with the row's share as colour."""
    counts = evaluation.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = blank(7.2, 6.8, left=1.3, bottom=1.2)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = np.arange(len(CLASS_NAMES))
    axes.set_xticks(ticks, CLASS_NAMES, rotation=45, ha="right")
    axes.set_yticks(ticks, CLASS_NAMES)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(f"{evaluation.split.capitalize()} set: {evaluation.accuracy:.2%} of {counts.sum():,} images right")
    return figure


def predictions(images: Images, labels: NDArray[np.uint8], probabilities: Probabilities) -> Figure:
    """The first forty images with what was predicted, and their true names where that is wrong."""
    first = np.arange(min(40, len(images)))
    return _gallery(images, labels, probabilities, first, "Predictions, the first forty (green: right, red: wrong)")


def mistakes(images: Images, labels: NDArray[np.uint8], probabilities: Probabilities) -> Figure:
    """The forty wrong answers that the model is surest of."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    surest = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:40]
    return _gallery(images, labels, probabilities, surest, f"The surest of {len(wrong):,} mistakes, and what they are")


def model_diagram(layers: Sequence[tuple[str, str, int]], title: str) -> Figure:
    """A box per layer from top to bottom: (description, output shape, parameters)."""
    figure, axes = blank(6, 0.4 * len(layers) + 0.5, left=0.1, right=0.1, bottom=0.1)
    for row, (description, shape, parameters) in enumerate(layers):
        weight = f"{parameters:,} parameters" if parameters else ""
        color = "#d6e6f2" if parameters else "#f2f2f2"
        axes.barh(row, 1, height=0.72, color=color, edgecolor="#7a8b99")
        axes.text(0.02, row, description, va="center", fontsize=9)
        axes.text(0.60, row, shape, va="center", ha="center", fontsize=9, color="#444444")
        axes.text(0.98, row, weight, va="center", ha="right", fontsize=9, color=VALIDATION)
        if row:
            axes.annotate("", (0.5, row - 0.36), (0.5, row - 0.64), arrowprops={"arrowstyle": "->", "color": "#7a8b99"})
    axes.set_ylim(len(layers) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_axis_off()
    axes.set_title(title)
    return figure


def _gallery(
    images: Images, labels: NDArray[np.uint8], probabilities: Probabilities, chosen: NDArray[np.intp], title: str
) -> Figure:
    """Images in rows of ten, each over the answer, and over its true name if that is another.

    One picture and one text an image, as forty axes and eighty texts would be slow. A pixel becomes two by two, which
    matplotlib need not interpolate.
    """
    columns, cell = 10, (46, 44)  # pixels, height and width of a cell
    rows = max(1, -(-len(chosen) // columns))
    canvas = np.full((rows * cell[0], columns * cell[1]), 0, np.uint8)
    width, height = 2 * columns * cell[1] / DPI, 2 * rows * cell[0] / DPI  # inches
    figure, axes = blank(width + 0.2, height + 0.5, left=0.1, right=0.1, bottom=0.1)
    for place, index in enumerate(chosen):
        top, left = place // columns * cell[0], place % columns * cell[1]
        canvas[top : top + 28, left + 8 : left + 36] = images[index]
        answer, true = int(probabilities[index].argmax()), int(labels[index])
        said = f"{CLASS_NAMES[answer]} {probabilities[index, answer]:.0%}"
        color = RIGHT if answer == true else WRONG
        said = said if answer == true else f"{said}\nis: {CLASS_NAMES[true]}"
        axes.text(left + 22, top + 30, said, ha="center", va="top", fontsize=6.5, color=color)
    axes.imshow(canvas, cmap="gray_r", vmin=0, vmax=255)
    axes.set_axis_off()
    axes.set_title(title)
    return figure
