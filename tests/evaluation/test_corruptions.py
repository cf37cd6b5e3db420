"""The contract of every corruption; a new entry of CORRUPTIONS is tested without a line here."""

import numpy as np
import pytest

from fmnist_exp.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt

each = pytest.mark.parametrize("name", CORRUPTIONS)


@each
@pytest.mark.parametrize("severity", SEVERITIES)
def test_images_stay_images_and_the_input_as_it_was(name, severity, small):
    images = small.test.images
    before = images.copy()
    corrupted = corrupt(name, images, severity, seed=0)
    assert corrupted.dtype == np.uint8
    assert corrupted.shape == images.shape
    assert np.array_equal(images, before)
    assert not np.shares_memory(corrupted, images)
    assert not np.array_equal(corrupted, images)


@each
def test_the_seed_decides(name, small):
    images = small.test.images
    first, again, other = (corrupt(name, images, 3, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    random = name in {"noise", "shift", "rotation", "occlusion"}
    assert np.array_equal(first, other) != random


@each
def test_a_higher_severity_is_further_from_the_original(name, small):
    images = small.test.images.astype(float)
    distances = [np.abs(corrupt(name, small.test.images, s, 0) - images).mean() for s in SEVERITIES]
    assert distances == sorted(distances)
    assert len(set(distances)) == len(SEVERITIES)


@each
def test_one_image_and_none(name, small):
    assert corrupt(name, small.test.images[:1], 5, 0).shape == (1, 28, 28)
    assert corrupt(name, small.test.images[:0], 5, 0).shape == (0, 28, 28)


def test_the_last_inversion_is_the_negative(small):
    assert np.array_equal(corrupt("inversion", small.test.images, 5, 0), 255 - small.test.images)


def test_light_does_not_overflow():
    white = np.full((1, 28, 28), 255, np.uint8)
    assert (corrupt("brightness", white, 5, 0) == 255).all()
