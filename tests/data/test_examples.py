"""Examples of augmentation: the first image of each class, changed as training changes it."""

import numpy as np
import pytest

from fmnist_exp.config.schema import AugmentationConfig
from fmnist_exp.data.augment import VARIANTS, examples


def test_the_first_image_of_each_class_is_shown(small):
    found = examples(small.train.images, small.train.labels, AugmentationConfig(), 0)
    assert list(found.labels) == list(range(10))
    first = [np.flatnonzero(small.train.labels == label)[0] for label in range(10)]
    assert np.array_equal(found.originals, small.train.images[first])
    assert len(found.augmented) == VARIANTS
    assert all(np.array_equal(variant, found.originals) for variant in found.augmented)  # nothing is on
    assert not found.mixed


@pytest.mark.parametrize("fields", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0, "shift": 2}])
def test_the_same_seed_gives_the_same_mixed_images(small, fields):
    config = AugmentationConfig(**fields)
    found, again, other = (examples(small.train.images, small.train.labels, config, seed) for seed in (3, 3, 4))
    assert len(found.mixed) == 2
    for (images, labels), (same, _), (different, _) in zip(found.mixed, again.mixed, other.mixed, strict=True):
        assert np.array_equal(images, same)
        assert not np.array_equal(images, different)
        assert labels.sum(axis=1) == pytest.approx(1)
