"""Batches show every image once an epoch; the seed and the epoch decide their order and augmentation."""

import collections
import typing

import numpy as np
import pytest

from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.batches import Batches, with_copies


def configure(**changes: typing.Any) -> ExperimentConfig:
    """training__epochs=3 stands for training.epochs=3."""
    return files.override(ExperimentConfig(), {name.replace("__", "."): value for name, value in changes.items()})


def test_every_epoch_shows_every_image_once_in_another_order(small):
    feed = Batches(configure(training__batch_size=60), small.train)
    orders = []
    for _ in range(2):
        shown = [feed[index] for index in range(len(feed))]
        images, labels = (np.concatenate(part) for part in zip(*shown, strict=True))
        orders.append([image.tobytes() for image in images])
        by_image = {i.tobytes(): label for i, label in zip(small.train.images, small.train.labels, strict=True)}
        assert [by_image[image] for image in orders[-1]] == list(labels)
        feed.on_epoch_end()
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(image.tobytes() for image in small.train.images)
    assert orders[0] != orders[1]


def test_the_incomplete_last_batch_is_left_out(small):
    assert len(Batches(configure(training__batch_size=64), small.train)) == 9


MIXED = {"training__labels": "one_hot", "augmentation__mixup": 0.4, "augmentation__cutmix": 1.0}


def shown(feed: typing.Any) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of an epoch."""
    images, labels = zip(*(feed[index] for index in range(len(feed))), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def test_batches_are_mixed(small):
    images, labels = shown(Batches(configure(training__batch_size=60, **MIXED), small.train))
    assert (images.dtype, labels.dtype, labels.shape) == (np.uint8, np.float32, (600, 10))
    assert labels.sum(axis=1) == pytest.approx(1, abs=1e-6)
    assert (np.count_nonzero(labels, axis=1) == 2).mean() > 0.7


def test_a_batch_depends_on_seed_and_epoch_alone(small):
    config = configure(training__batch_size=60, augmentation__rotation=20, **MIXED)
    first, again = Batches(config, small.train), Batches(config, small.train)
    images, labels = first[3]
    shown(again)  # whatever was asked for before
    assert np.array_equal(again[3][0], images)
    assert np.array_equal(again[3][1], labels)
    first.on_epoch_end()
    assert not np.array_equal(first[3][0], images)
    assert np.array_equal(Batches(config, small.train, epochs_done=1)[3][0], first[3][0])


COPIED = {"training__batch_size": 60, "augmentation__rotation": 20, "augmentation__zoom": 0.2}


@pytest.mark.parametrize("labels", ["integer", "one_hot"])
def test_copies_are_shown_beside_the_originals(small, labels):
    feed = Batches(configure(**COPIED, augmentation__copies=3, training__labels=labels), small.train)
    assert len(feed) == 4 * 600 / 60
    images, given = shown(feed)
    given = given.argmax(axis=1) if labels == "one_hot" else given
    originals = {image.tobytes(): label for image, label in zip(small.train.images, small.train.labels, strict=True)}
    counts = collections.Counter(image.tobytes() for image in images)
    assert [counts[original] for original in originals] == [1] * 600
    assert set(counts.values()) == {1}  # and no two copies are the same
    is_original = np.array([image.tobytes() in originals for image in images])
    assert [originals[image.tobytes()] for image in images[is_original]] == list(given[is_original])
    assert 0.1 < is_original[:600].mean() < 0.4  # shuffled together
    feed.on_epoch_end()
    assert collections.Counter(image.tobytes() for image in shown(feed)[0]) == counts


def test_copies_carry_the_labels_of_their_images(small):
    slightly = {"augmentation__copies": 2, "augmentation__rotation": 4, "augmentation__zoom": 0.03}
    whole = with_copies(configure(**slightly), small.train)
    assert whole.images.shape == (1800, 28, 28)
    assert np.array_equal(whole.labels, np.tile(small.train.labels, 3))
    flat = whole.images.reshape(3, 600, -1).astype(float)
    flat -= flat.mean(axis=-1, keepdims=True)
    flat /= np.linalg.norm(flat, axis=-1, keepdims=True)
    for copy in flat[1:]:  # each copy is most like the image that it was made of
        assert np.mean((copy @ flat[0].T).argmax(axis=1) == np.arange(600)) > 0.9


def test_the_seed_decides_about_the_copies(small, monkeypatch):
    monkeypatch.setattr("fmnist_exp.data.batches.COPIED_AT_ONCE", 250)  # the last part is shorter
    first, again, other = (
        with_copies(configure(**COPIED, augmentation__copies=1, seed=seed), small.train).images for seed in (7, 7, 8)
    )
    assert np.array_equal(first, again)
    assert np.array_equal(first[:600], other[:600])
    assert (first[600:] != other[600:]).any(axis=(1, 2)).mean() > 0.99


def test_copies_are_mixed_too(small):
    _, labels = shown(Batches(configure(**COPIED, augmentation__copies=1, **MIXED), small.train))
    assert labels.shape == (1200, 10)
    assert (np.count_nonzero(labels, axis=1) == 2).mean() > 0.7
