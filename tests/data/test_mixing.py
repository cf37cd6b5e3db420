"""Mixing: pictures and labels are blended in the same proportion, also to the last pixel."""

import numpy as np
import pytest

from fmnist_exp.config.schema import AugmentationConfig
from fmnist_exp.data.augment import cutmix, mix, mixup

MIXERS = [mixup, cutmix]


@pytest.fixture
def batch(small) -> tuple[np.ndarray, np.ndarray]:
    return small.train.images[:64], np.eye(10, dtype=np.float32)[small.train.labels[:64]]


@pytest.fixture
def greys() -> tuple[np.ndarray, np.ndarray]:
    """Image i is all of the grey i, and its label the i-th of 250: what went into a mixture can be read off."""
    greys = np.arange(250, dtype=np.uint8)
    return np.repeat(greys, 28 * 28).reshape(250, 28, 28), np.eye(250, dtype=np.float32)


@pytest.mark.parametrize("change", MIXERS)
def test_shapes_types_and_inputs_are_kept(change, batch):
    before = [part.copy() for part in batch]
    after = change(*batch, 1.0, np.random.default_rng(0))
    for old, kept, new in zip(before, batch, after, strict=True):
        assert (new.shape, new.dtype) == (old.shape, old.dtype)
        assert not np.array_equal(new, old)
        new[...] = 0
        assert np.array_equal(kept, old)


@pytest.mark.parametrize("change", MIXERS)
@pytest.mark.parametrize("alpha", [1e-3, 0.2, 1.0, 10.0])
def test_labels_sum_to_one(change, alpha, batch):
    _, labels = change(*batch, alpha, np.random.default_rng(0))
    assert labels.sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert labels.min() >= 0
    assert (np.count_nonzero(labels, axis=1) <= 2).all()


@pytest.mark.parametrize("change", MIXERS)
def test_the_generator_decides(change, batch):
    first, again, other = (change(*batch, 1.0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("change", MIXERS)
def test_identical_images_stay_as_they_are(change, batch):
    images = np.repeat(batch[0][:1], 64, axis=0)
    mixed, labels = change(images, np.repeat(batch[1][:1], 64, axis=0), 0.7, np.random.default_rng(0))
    assert np.array_equal(mixed, images)
    assert np.array_equal(labels, np.repeat(batch[1][:1], 64, axis=0))


@pytest.mark.parametrize("change", MIXERS)
def test_one_image_alone_has_only_itself(change, batch):
    mixed, _ = change(batch[0][:1], batch[1][:1], 1.0, np.random.default_rng(0))
    assert np.array_equal(mixed, batch[0][:1])


def test_mixup_blends_as_the_labels_say(greys):
    images, labels = mixup(*greys, 1.0, np.random.default_rng(0))
    assert np.array_equal(images.min(axis=(1, 2)), images.max(axis=(1, 2)))
    assert np.abs(images[:, 0, 0] - labels @ np.arange(250)).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_the_shares_follow_the_beta_law(alpha, greys):
    _, labels = mixup(*greys, alpha, np.random.default_rng(0))
    shares = labels.diagonal()
    assert shares.mean() == pytest.approx(0.5, abs=0.1)
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.3)
    assert len(np.unique(shares)) > 50  # each image has its own


def test_cutmix_labels_are_the_area_of_one_pasted_rectangle(greys):
    images, labels = cutmix(*greys, 1.0, np.random.default_rng(0))
    pasted = images != greys[0]
    assert labels.diagonal() == pytest.approx(1 - pasted.mean(axis=(1, 2)), abs=1e-6)
    assert pasted.any(axis=(1, 2)).mean() > 0.9
    for index in np.flatnonzero(pasted.any(axis=(1, 2))):
        rows, columns = (np.flatnonzero(pasted[index].any(axis=axis)) for axis in (1, 0))
        assert pasted[index].sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        (partner,) = np.unique(images[index][pasted[index]])
        assert labels[index, partner] == pytest.approx(pasted[index].mean(), abs=1e-6)


def test_cutmix_reaches_every_pixel(greys):
    touched = sum((cutmix(*greys, 1.0, np.random.default_rng(s))[0] != greys[0]).sum(axis=0) for s in range(4))
    assert touched.min() > 50


def test_mix_does_what_is_on(batch):
    def mixed(**fields: float) -> np.ndarray:
        return mix(*batch, AugmentationConfig(**fields), np.random.default_rng(4))[0]

    assert np.array_equal(mixed(), batch[0])
    assert np.array_equal(mixed(mixup=0.3), mixup(*batch, 0.3, np.random.default_rng(4))[0])
    assert np.array_equal(mixed(cutmix=2), cutmix(*batch, 2, np.random.default_rng(4))[0])


def test_with_both_on_each_batch_takes_one_of_them(greys):
    both = AugmentationConfig(mixup=1.0, cutmix=1.0)
    blended = 0
    for seed in range(60):
        images, _ = mix(*greys, both, np.random.default_rng(seed))
        blended += np.array_equal(images.min(axis=(1, 2)), images.max(axis=(1, 2)))
    assert 18 < blended < 42
