"""`speed.measure` times an experiment's network in both precisions, and the cache remembers the result."""

import json
import math

import pytest
from support.experiments import NORMALIZED

from fmnist_exp.config import files
from fmnist_exp.training import fit as fitting
from fmnist_exp.training import speed

CONFIG = files.override(NORMALIZED, {"training.precision": "measure"})
SPEEDS = {"float32": 2000.5, "bfloat16": 1000.0}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FMNIST_EXP_CACHE", str(tmp_path))
    return tmp_path / "precision"


def test_both_precisions_are_measured(small):
    speeds = speed.measure(CONFIG, small)
    assert speeds.keys() == {"float32", "bfloat16"}
    assert all(0 < value < math.inf for value in speeds.values())


def test_images_are_repeated_if_there_are_too_few(small):
    """Four calls need three batches of 600 images each, but there are only 600 images."""
    whole = files.override(CONFIG, {"training.batch_size": 600, "training.steps_per_execution": 3})
    assert all(value > 0 for value in speed.measure(whole, small).values())


def test_large_batches_and_copies_do_not_prolong_the_measurement(data, small, monkeypatch):
    """The real fit runs, and a wrapper records its configuration and its number of images."""
    fits, fit = [], fitting.fit

    def recorded(model, config, subset, callbacks):
        fits.append((config, len(subset.train.images)))
        return fit(model, config, subset, callbacks)

    monkeypatch.setattr(fitting, "fit", recorded)
    large = {"training.batch_size": 50_000, "training.steps_per_execution": 32, "augmentation.copies": 3}
    speed.measure(files.override(CONFIG, large), data)
    few = {"training.batch_size": 400, "training.steps_per_execution": 32, "augmentation.copies": 1}
    speed.measure(files.override(CONFIG, few), small)
    assert [images for _, images in fits] == [4 * 8192] * 2 + [4 * 3 * 400] * 2  # an epoch of `few` has three steps
    assert not any(config.augmentation.copies or config.augmentation.transforms() for config, _ in fits)


def test_speeds_are_recalled_for_the_same_network_only(monkeypatch):
    assert speed.recall(CONFIG) is None
    speed.remember(CONFIG, SPEEDS)
    assert speed.recall(CONFIG) == SPEEDS
    assert speed.recall(files.override(CONFIG, {"seed": 1, "training.epochs": 7})) == SPEEDS
    for other in ({"model.widths": [17]}, {"training.batch_size": 51}, {"training.optimizer": "sgd"}):
        assert speed.recall(files.override(CONFIG, other)) is None
    monkeypatch.setattr(speed.setup, "threads", lambda: 99)
    assert speed.recall(CONFIG) is None


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b"null",
        b"[" * 99_999,
        b'{"key": {}}',
        b'{"key": {}, "images_per_second": {"float32": 1, "bfloat16": 1}}',
        b'{"images_per_second": {"float32": "fast", "bfloat16": 1}}',
        b'{"images_per_second": 5}',
    ],
    ids=range(9),
)
def test_a_damaged_cache_is_ignored_and_replaced(cache, damage):
    speed.remember(CONFIG, SPEEDS)
    (file,) = cache.iterdir()
    file.write_bytes(damage)
    assert speed.recall(CONFIG) is None
    speed.remember(CONFIG, SPEEDS)
    assert speed.recall(CONFIG) == SPEEDS
    assert list(cache.iterdir()) == [file], "nothing is left of the writing"


@pytest.mark.parametrize("wrong", [0, -1, math.nan, math.inf])
def test_speeds_that_cannot_be_are_ignored(cache, wrong):
    speed.remember(CONFIG, SPEEDS | {"float32": wrong})
    assert speed.recall(CONFIG) is None
    assert json.loads(next(cache.iterdir()).read_text())["images_per_second"]["bfloat16"] == 1000


def test_a_cache_that_cannot_be_written_is_no_failure(cache):
    cache.write_text("a file where the folder should be")
    speed.remember(CONFIG, SPEEDS)
    assert speed.recall(CONFIG) is None
