"""Every figure can be drawn, even from very few images, and its texts state the right numbers."""

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure
from support.figures import words

from fmnist_exp.config.schema import AugmentationConfig
from fmnist_exp.data.augment import VARIANTS, examples
from fmnist_exp.data.dataset import Split
from fmnist_exp.data.formats import CLASS_NAMES
from fmnist_exp.evaluation import metrics as scoring
from fmnist_exp.figures import canvas
from fmnist_exp.figures import run as run_figures
from fmnist_exp.training.events import Epoch


@pytest.fixture
def answers(small) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images, labels and probabilities: three of four predictions are right, each has a confidence of 0.91."""
    labels = small.test.labels
    given = np.where(np.arange(200) % 4 == 0, (labels + 1) % 10, labels)
    return small.test.images, labels, (np.eye(10)[given] * 0.9 + 0.01).astype(np.float32)


def epochs(count: int) -> list[Epoch]:
    keys = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    return [Epoch(number, dict.fromkeys(keys, 0.5 + number / 100)) for number in range(1, count + 1)]


def test_samples_shows_ten_of_each_class(small):
    figure = run_figures.samples(small.train.images, small.train.labels)
    assert "Ankle boot" in words(figure)
    (picture,) = figure.axes[0].get_images()
    shown = np.asarray(picture.get_array())
    assert shown.shape == (280, 280)
    trousers = small.train.images[small.train.labels == 1]
    assert np.array_equal(shown[28:56, :28], trousers[0])
    assert np.array_equal(shown[28:56, 252:], trousers[9])


def test_samples_accepts_less_than_ten_images_of_a_class(small):
    chosen = np.flatnonzero((small.train.labels != 3) | (np.cumsum(small.train.labels == 3) <= 4))
    assert np.bincount(small.train.labels[chosen])[3] == 4
    figure = run_figures.samples(small.train.images[chosen], small.train.labels[chosen])
    assert "ten of each class" in words(figure)


ALL_ON = AugmentationConfig(
    horizontal_flip=True, rotation=15, shear=10, zoom=0.2, shift=2, erasing=0.5, mixup=2, cutmix=1
)


def augmented(split: Split, config: AugmentationConfig, seed: int) -> Figure:
    return run_figures.augmented(examples(split.images, split.labels, config, seed), config)


def pictures(figure: Figure, column: int) -> np.ndarray:
    """Return the images in a column of an augmented figure; column 0 holds the originals."""
    (picture,) = figure.axes[0].get_images()
    sheet = np.asarray(picture.get_array())
    left = 32 * column + (14 if column else 2)
    return sheet.reshape(-1, 32, sheet.shape[1])[:, 2:30, left : left + 28]


def test_augmented_without_augmentation_repeats_the_originals(small):
    figure = augmented(small.train, AugmentationConfig(), 0)
    assert "no augmentation" in words(figure)
    assert "Ankle boot" in words(figure)
    first = small.train.images[[np.flatnonzero(small.train.labels == label)[0] for label in range(10)]]
    assert all(np.array_equal(pictures(figure, column), first) for column in range(VARIANTS + 1))


def test_augmented_names_the_fields_and_shows_different_variants(small):
    figure = augmented(small.train, ALL_ON, 0)
    texts = words(figure)
    names = "horizontal_flip, rotation 15, shear 10, zoom 0.2, shift 2, erasing 0.5, mixup 2, cutmix 1"
    assert names in texts
    assert "copies" not in texts
    columns = [pictures(figure, column) for column in range(VARIANTS + 1)]
    assert all((a != b).any() for a, b in itertools.combinations(columns, 2))
    assert len(figure.axes[0].texts) == 20
    assert "% " in texts
    again = augmented(small.train, ALL_ON, 0)
    assert np.array_equal(pictures(again, 5), columns[5])


@pytest.mark.parametrize("fields", [{"mixup": 1.0}, {"cutmix": 1.0}, {"shift": 2, "copies": 2}])
def test_augmented_shows_only_the_classes_of_the_split(small, fields):
    chosen = np.isin(small.train.labels, (2, 7))
    config = AugmentationConfig(**fields)
    few = Split("train", small.train.images[chosen], small.train.labels[chosen])
    figure = augmented(few, config, 3)
    texts = words(figure)
    assert "Pullover" in texts
    assert "Dress" not in texts
    assert ("2 copies" in texts) == ("copies" in fields)


@pytest.mark.parametrize("count", [1, 2, 30])
@pytest.mark.parametrize("quantity", ["accuracy", "loss"])
def test_curves_have_a_point_for_each_epoch_and_mark_the_best(count, quantity):
    every = epochs(count)
    figure = run_figures.curves(every, quantity, every[-1])
    texts = words(figure)
    assert f"kept: {0.5 + count / 100:.4f}" in texts
    assert f"{quantity.capitalize()} by epoch" in texts
    training, validation, kept = figure.axes[0].get_lines()
    assert list(training.get_xdata()) == list(validation.get_xdata()) == list(range(1, count + 1))
    assert list(kept.get_xdata()) == [count]
    ticks = [tick for tick in figure.axes[0].get_xticks() if 0.5 <= tick <= count + 0.5]
    assert ticks
    assert all(tick == round(tick) for tick in ticks)


def test_confusion_matrix_shows_counts_and_accuracy(answers):
    _, labels, probabilities = answers
    evaluated = scoring.evaluate(probabilities, labels, "test")
    figure = run_figures.confusion_matrix(evaluated)
    assert "Test set: 75.00% (68.57 to 80.49) of 200 images right" in words(figure)
    counts = {(round(t.get_position()[1]), round(t.get_position()[0])): int(t.get_text()) for t in figure.axes[0].texts}
    assert counts == {cell: count for cell, count in np.ndenumerate(evaluated.confusion) if count}


def test_confusion_matrix_can_be_drawn_for_one_image():
    evaluated = scoring.evaluate(np.eye(10)[[2]], np.array([2]), "validation")
    assert "Validation set: 100.00% (20.65 to 100.00) of 1 images right" in words(
        run_figures.confusion_matrix(evaluated)
    )


def test_predictions_shows_the_first_forty(answers):
    images, labels, probabilities = answers
    figure = run_figures.predictions(images, labels, probabilities)
    assert "first forty" in words(figure)
    assert len(figure.axes[0].texts) == 40
    wrong, right = (text.get_text() for text in figure.axes[0].texts[:2])
    names = CLASS_NAMES
    assert wrong == f"{names[(labels[0] + 1) % 10]} 91%\nis: {names[labels[0]]}"
    assert right == f"{names[labels[1]]} 91%"
    colors = [text.get_color() for text in figure.axes[0].texts]
    assert colors == [canvas.WRONG, *[canvas.RIGHT] * 3] * 10
    shown = np.asarray(figure.axes[0].get_images()[0].get_array())
    assert np.array_equal(shown[46:74, 52:80], images[11])  # second row, second column


def test_predictions_can_be_drawn_for_one_image(answers):
    images, labels, probabilities = answers
    figure = run_figures.predictions(images[:1], labels[:1], probabilities[:1])
    assert "91%" in words(figure)
    assert len(figure.axes[0].texts) == 1


def test_mistakes_shows_the_highest_confidence_first(answers):
    images, labels, probabilities = answers
    probabilities[8] = np.full(10, 0.001)
    probabilities[8, (labels[8] + 2) % 10] = 0.991
    figure = run_figures.mistakes(images, labels, probabilities)
    assert "The surest of 50 mistakes" in words(figure)
    assert len(figure.axes[0].texts) == 40
    assert figure.axes[0].texts[0].get_text().startswith(f"{CLASS_NAMES[(labels[8] + 2) % 10]} 99%\nis: ")
    assert {text.get_color() for text in figure.axes[0].texts} == {canvas.WRONG}


def test_mistakes_can_be_drawn_if_there_are_none(answers):
    images, labels, _ = answers
    figure = run_figures.mistakes(images, labels, np.eye(10)[labels])
    assert "The surest of 0 mistakes" in words(figure)
    assert not figure.axes[0].texts


def test_model_diagram_has_a_box_for_each_layer():
    layers = [("Input", "28 × 28 uint8", 0), ("Dense 10 softmax", "10", 7850)]
    figure = run_figures.model_diagram(layers, "linear: 7,850 parameters")
    texts = words(figure)
    assert all(text in texts for text in ("Dense 10 softmax", "7,850 parameters", "28 × 28 uint8"))
    assert len(figure.axes[0].patches) == 2
    top, bottom = (box.get_y() for box in figure.axes[0].patches)
    assert figure.axes[0].get_ylim()[0] > bottom > top  # the y axis points down
