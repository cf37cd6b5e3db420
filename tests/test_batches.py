"""What Keras is fed: every image, in an order and a guise that seed and epoch decide."""

import typing

import numpy as np

from fmnist_exp import experiment_files
from fmnist_exp.batches import batches
from fmnist_exp.config import ExperimentConfig


def configure(**changes: typing.Any) -> ExperimentConfig:
    """training__epochs=3 stands for training.epochs=3."""
    return experiment_files.override(
        ExperimentConfig(), {name.replace("__", "."): value for name, value in changes.items()}
    )


def test_every_epoch_shows_every_image_once_in_another_order(small):
    feed = batches(configure(training__batch_size=60), small.train)
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
    assert len(batches(configure(training__batch_size=64), small.train)) == 9
