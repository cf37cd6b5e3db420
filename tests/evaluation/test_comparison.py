"""The comparison of two models: the paired test, the counts, and the choice of images that neither was trained on."""

import csv

import numpy as np
import pytest

from fmnist_exp.data.dataset import Split
from fmnist_exp.evaluation.comparison import Comparison, seen_by_neither


def compared(won: int, lost: int, both: int = 10) -> Comparison:
    """The challenger alone is right on `won` images, the champion alone on `lost`."""
    count = won + lost + both
    labels = np.arange(count) % 10
    wrong = (labels + 1) % 10
    index = np.arange(count)
    challenger = np.where((index >= won) & (index < won + lost), wrong, labels)
    champion = np.where(index < won, wrong, labels)
    split = Split("validation", np.zeros((count, 28, 28), np.uint8), labels.astype(np.uint8))
    return Comparison(split, index + 100, challenger, champion)


@pytest.mark.parametrize(("won", "lost", "p"), [(0, 0, 1), (5, 0, 1 / 32), (0, 5, 1), (1, 1, 0.75), (9, 1, 11 / 1024)])
def test_exact_one_sided_mcnemar(won, lost, p):
    assert compared(won, lost).p_value == pytest.approx(p)


def test_the_level_is_kept_by_equal_models():
    """At level 0.05, at most one in twenty challengers passes that is no better than the champion."""
    random = np.random.default_rng(0)
    passed = [compared(won, 200 - won, 0).p_value < 0.05 for won in random.binomial(200, 0.5, 400)]
    assert 0.01 < np.mean(passed) <= 0.07


def test_numbers_and_classes_add_up():
    numbers = compared(30, 20).numbers()
    assert (numbers["images"], numbers["won"], numbers["lost"]) == (60, 30, 20)
    assert numbers["challenger_accuracy"] == pytest.approx(40 / 60)
    for key in ("images", "won", "lost"):
        assert sum(row[key] for row in numbers["classes"].values()) == numbers[key]


def test_the_table_has_the_images_that_one_of_them_wins(tmp_path):
    compared(2, 1).write_images(tmp_path / "images.csv")
    rows = list(csv.DictReader((tmp_path / "images.csv").read_text(encoding="utf-8").splitlines()))
    assert [(row["gate_image"], row["won_by"]) for row in rows] == [
        ("100", "challenger"),
        ("101", "challenger"),
        ("102", "champion"),
    ]
    assert rows[0] == {
        "gate_image": "100",
        "true": "T-shirt/top",
        "challenger": "T-shirt/top",
        "champion": "Trouser",
        "won_by": "challenger",
    }


def test_images_that_were_trained_on_do_not_count(small):
    held_out = small.validation
    half = Split("train", held_out.images[::2], held_out.labels[::2])
    assert np.array_equal(seen_by_neither(held_out, small.train, half), np.arange(1, len(held_out.labels), 2))
    assert len(seen_by_neither(held_out, small.train, held_out)) == 0
    assert len(seen_by_neither(held_out)) == len(held_out.labels)
