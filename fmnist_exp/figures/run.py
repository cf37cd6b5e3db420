"""The figures of a run: training images, learning curves, the confusion matrix, predictions and the network."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fmnist_exp.config.schema import AugmentationConfig
from fmnist_exp.data.augment import Examples
from fmnist_exp.data.formats import CLASS_NAMES
from fmnist_exp.evaluation.calibration import Labels, Probabilities
from fmnist_exp.evaluation.metrics import Evaluation
from fmnist_exp.figures.canvas import DPI, RIGHT, TRAIN, VALIDATION, WRONG, Images, blank
from fmnist_exp.training.events import Epoch

SHOWN = 40  # predictions in a gallery


def samples(images: Images, labels: Labels) -> Figure:
    """Draw ten images of each class, one class in each row."""
    sheet = np.zeros((len(CLASS_NAMES), 10, *images.shape[1:]), np.uint8)  # a class with fewer images leaves gaps
    for label, row in enumerate(sheet):
        chosen = images[np.flatnonzero(labels == label)[:10]]
        row[: len(chosen)] = chosen
    figure, axes = blank(6.4, 5.5, left=1.1, bottom=0.1)
    axes.imshow(np.block([list(row) for row in sheet]), cmap="gray_r")
    axes.set_yticks(np.arange(len(CLASS_NAMES)) * 28 + 14, CLASS_NAMES)
    axes.set(xticks=[], title="Training images, ten of each class")
    return figure


def augmented(examples: Examples, config: AugmentationConfig) -> Figure:
    """Draw one class in each row: the original image, its augmented variants, and mixed images with their labels."""
    cell, mixed_cell = 32, 84  # pixels: the width of an image's cell, and of a mixed one's with its label
    variants = len(examples.augmented)
    lefts = [0, *(cell * column + 12 for column in range(1, variants + 1))]
    lefts += [cell * (variants + 1) + 24 + mixed_cell * column for column in range(len(examples.mixed))]
    width = lefts[-1] + (mixed_cell if examples.mixed else cell)
    canvas = np.zeros((cell * len(examples.labels), width), np.uint8)
    columns = [examples.originals, *examples.augmented, *(images for images, _ in examples.mixed)]
    for left, column in zip(lefts, columns, strict=True):
        for row, image in enumerate(column):
            canvas[row * cell + 2 : row * cell + 30, left + 2 : left + 30] = image
    figure, axes = blank(width / 60 + 1.3, len(canvas) / 60 + 0.6, left=1.1, bottom=0.2)
    axes.imshow(canvas, cmap="gray_r", vmin=0, vmax=255)
    for left, (_, soft_labels) in zip(lefts[variants + 1 :], examples.mixed, strict=True):
        for row, (label, shares) in enumerate(zip(examples.labels, soft_labels, strict=True)):
            others = np.where(np.arange(len(shares)) == label, 0, shares)
            caption = f"+ {others.max():.0%} {CLASS_NAMES[others.argmax()]}" if others.any() else ""
            axes.text(left + 32, row * cell + 16, caption, va="center", fontsize=6)
    axes.set_yticks(np.arange(len(examples.labels)) * cell + 16, [CLASS_NAMES[label] for label in examples.labels])
    axes.set_xticks([])
    axes.set_title(_augmentation(config), loc="left", fontsize=8)
    return figure


def _augmentation(config: AugmentationConfig) -> str:
    """Return a title that lists the augmentation fields that are on."""
    fields = [name if value is True else f"{name} {value:g}" for name, value in config.transforms().items()]
    fields += [f"{name} {alpha:g}" for name, alpha in (("mixup", config.mixup), ("cutmix", config.cutmix)) if alpha]
    number = "one copy" if config.copies == 1 else f"{config.copies} copies"
    made = f", in {number} made beforehand" if config.copies else ""
    return f"Left as it is, right as it is trained on{made}\n{', '.join(fields) or 'no augmentation'}"


def curves(epochs: Sequence[Epoch], quantity: str, best: Epoch) -> Figure:
    """Draw `quantity` ("loss" or "accuracy") of training and validation by epoch, and mark the epoch `best`."""
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
    ylabel = "cross-entropy and penalties" if quantity == "loss" else quantity
    axes.set(xlabel="epoch", ylabel=ylabel, title=f"{quantity.capitalize()} by epoch")
    axes.legend()
    axes.grid(alpha=0.3)
    return figure


def confusion_matrix(evaluation: Evaluation) -> Figure:
    """Draw the counts of each true and predicted class, coloured by their share of the true class."""
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
    title = f"{evaluation.split.capitalize()} set: {evaluation.text} of {counts.sum():,} images right"
    axes.set(xlabel="predicted", ylabel="true", title=title)
    return figure


def predictions(images: Images, labels: Labels, probabilities: Probabilities) -> Figure:
    """Draw the first forty images with the predicted class, and with the true one where the prediction is wrong."""
    first = np.arange(min(SHOWN, len(images)))
    return _gallery(images, labels, probabilities, first, "Predictions, the first forty (green: right, red: wrong)")


def mistakes(images: Images, labels: Labels, probabilities: Probabilities) -> Figure:
    """Draw the forty wrong predictions with the highest confidence."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    surest = wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")][:SHOWN]
    return _gallery(images, labels, probabilities, surest, f"The surest of {len(wrong):,} mistakes, and what they are")


def model_diagram(layers: Sequence[tuple[str, str, int]], title: str) -> Figure:
    """Draw a box for each layer, given as (description, output shape, number of parameters), from top to bottom."""
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
    axes.set(xlim=(0, 1), ylim=(len(layers) - 0.5, -0.5), title=title)
    axes.set_axis_off()
    return figure


def _gallery(
    images: Images, labels: Labels, probabilities: Probabilities, chosen: NDArray[np.intp], title: str
) -> Figure:
    """Draw the chosen images in rows of ten, each above its predicted class, and its true one if that is another.

    All images are drawn as one picture, with one text for each, because forty axes would be slow. Each pixel is drawn
    as two by two pixels, so that matplotlib does not interpolate.
    """
    columns, cell = 10, (46, 44)  # pixels, height and width of a cell
    rows = max(1, -(-len(chosen) // columns))
    canvas = np.zeros((rows * cell[0], columns * cell[1]), np.uint8)
    width, height = 2 * columns * cell[1] / DPI, 2 * rows * cell[0] / DPI  # inches
    figure, axes = blank(width + 0.2, height + 0.5, left=0.1, right=0.1, bottom=0.1)
    for position, index in enumerate(chosen):
        top, left = position // columns * cell[0], position % columns * cell[1]
        canvas[top : top + 28, left + 8 : left + 36] = images[index]
        predicted, true = int(probabilities[index].argmax()), int(labels[index])
        text, color = f"{CLASS_NAMES[predicted]} {probabilities[index, predicted]:.0%}", RIGHT
        if predicted != true:
            text, color = f"{text}\nis: {CLASS_NAMES[true]}", WRONG
        axes.text(left + 22, top + 30, text, ha="center", va="top", fontsize=6.5, color=color)
    axes.imshow(canvas, cmap="gray_r", vmin=0, vmax=255)
    axes.set_axis_off()
    axes.set_title(title)
    return figure
