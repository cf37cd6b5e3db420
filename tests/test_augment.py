"""Augmentation: what each transform does to real images, and what none may do."""

import numpy as np
import pytest

from fmnist_exp.augment import ERASED_SIDE, TRANSFORMS, augment
from fmnist_exp.config import AugmentationConfig

ON = {"horizontal_flip": {"horizontal_flip": True}, "shift": {"shift": 3}, "erasing": {"erasing": 1.0}}


def on(name: str) -> AugmentationConfig:
    """A transform alone. One that is not in ON is switched on by the highest value its field takes."""
    field = AugmentationConfig.model_fields[name]
    highest = next((m.le for m in field.metadata if hasattr(m, "le")), True)
    return AugmentationConfig(**ON.get(name, {name: highest}))


@pytest.fixture
def batch(small) -> np.ndarray:
    return small.train.images[:64]


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_keeps_shape_type_and_its_input(name, batch):
    before = batch.copy()
    after = TRANSFORMS[name](batch, on(name), np.random.default_rng(0))
    assert (after.shape, after.dtype) == (batch.shape, np.uint8)
    assert not np.array_equal(after, before)
    after[...] = 7  # what comes out is the caller's own
    assert np.array_equal(batch, before)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_generator_decides_what_a_transform_does(name, batch):
    first, again, other = (TRANSFORMS[name](batch, on(name), np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_has_a_switch_of_its_own(name, batch):
    expected = TRANSFORMS[name](batch, on(name), np.random.default_rng(0))
    assert np.array_equal(augment(batch, on(name), np.random.default_rng(0)), expected)


def test_all_off_changes_nothing(batch):
    assert np.array_equal(augment(batch, AugmentationConfig(), np.random.default_rng(0)), batch)


@pytest.mark.parametrize("size", [1, 64])
def test_all_on_at_once(batch, size):
    everything = AugmentationConfig(horizontal_flip=True, shift=8, erasing=0.5)
    assert augment(batch[:size], everything, np.random.default_rng(0)).shape == (size, 28, 28)


def test_flip_mirrors_about_half_of_the_images(small):
    after = TRANSFORMS["horizontal_flip"](small.train.images, on("horizontal_flip"), np.random.default_rng(0))
    same = (after == small.train.images).all(axis=(1, 2))
    mirrored = (after == small.train.images[:, :, ::-1]).all(axis=(1, 2))
    assert (same | mirrored).all()
    assert 0.4 < mirrored.mean() < 0.6


@pytest.mark.parametrize("most", [1, 3, 8])
def test_shift_moves_by_at_most_so_many_pixels_and_fills_with_black(most):
    bright = np.random.default_rng(1).integers(1, 256, (200, 28, 28), np.uint8)  # no black: the border shows
    after = TRANSFORMS["shift"](bright, AugmentationConfig(shift=most), np.random.default_rng(0))
    moves = set()
    for before, moved in zip(bright, after, strict=True):
        rows, columns = (np.flatnonzero(moved.any(axis=axis)) for axis in (1, 0))
        down, right = (
            places[0] if places[0] else places[-1] - 27 for places in (rows, columns)
        )  # the black border shows the way
        expected = np.zeros_like(before)
        expected[max(down, 0) : 28 + down, max(right, 0) : 28 + right] = before[
            max(-down, 0) : 28 - down, max(-right, 0) : 28 - right
        ]
        assert np.array_equal(moved, expected)
        moves |= {("down", int(down)), ("right", int(right))}
    assert moves == {(way, step) for way in ("down", "right") for step in range(-most, most + 1)}


def test_erasing_changes_one_rectangle_only():
    flat = np.full((200, 28, 28), 256 // 2, np.uint8)
    after = TRANSFORMS["erasing"](flat, AugmentationConfig(erasing=1.0), np.random.default_rng(0))
    sides = set()
    for image in after:
        changed = image != 128
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        sides |= {int(height), int(width)}
        # noise may hit the old value by chance: at most one pixel in 256 on average
        assert changed.sum() > 0.9 * height * width
    assert (min(sides), max(sides)) == ERASED_SIDE


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_erasing_hits_so_many_images(small, share):
    after = TRANSFORMS["erasing"](small.train.images, AugmentationConfig(erasing=share), np.random.default_rng(0))
    hit = (after != small.train.images).any(axis=(1, 2)).mean()
    assert hit == pytest.approx(share, abs=0.06)
