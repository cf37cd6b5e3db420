"""Training images as Keras is fed them: shuffled, augmented, with labels as the loss wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.config.schema import ExperimentConfig, TrainingConfig
from fmnist_exp.data.augment import augment, mix
from fmnist_exp.data.dataset import Split

if TYPE_CHECKING:
    import keras

COPIED_AT_ONCE = 1000  # images; only memory depends on it, and what the generator draws for whom


def targets(split: Split, training: TrainingConfig) -> NDArray[Any]:
    """Labels as the loss wants them: (N,) whole numbers, or (N, 10) one-hot."""
    return np.eye(10, dtype=np.float32)[split.labels] if training.labels == "one_hot" else split.labels


def with_copies(config: ExperimentConfig, split: Split) -> Split:
    """The images, then `augmentation.copies` changed copies of them all; the seed alone decides how they change."""
    copies, count = config.augmentation.copies, len(split.images)
    # a branch of the seed that the epochs, which are numbers beside it, never take
    random = np.random.default_rng(np.random.SeedSequence(config.seed, spawn_key=(0,)))
    images = np.empty(((1 + copies) * count, *split.images.shape[1:]), np.uint8)
    images[:count] = split.images
    for copy in range(1, copies + 1):
        for start in range(0, count, COPIED_AT_ONCE):
            part = split.images[start : start + COPIED_AT_ONCE]
            first = copy * count + start
            images[first : first + len(part)] = augment(part, config.augmentation, random)
    return Split(split.name, images, np.tile(split.labels, 1 + copies))


def batches(config: ExperimentConfig, split: Split, epochs_done: int = 0) -> keras.utils.PyDataset:
    """Shuffled, augmented batches: the order and the augmentation depend on seed and epoch alone.

    With `augmentation.copies`, an epoch shows the originals and the copies, as they were made at the start.
    `epochs_done` is where a fit that was cut off goes on.
    """
    from keras.utils import PyDataset

    changes, size = config.augmentation, config.training.batch_size
    if changes.copies:
        split = with_copies(config, split)
    labels = targets(split, config.training)

    class Batches(PyDataset):
        def __init__(self) -> None:
            # Keras' own queue: with one worker it takes TensorFlow's, which makes no batch ahead of time, and whose end
            # makes about every second epoch 4 seconds longer
            super().__init__(workers=2)
            self.epoch = epochs_done - 1
            self.on_epoch_end()

        def __len__(self) -> int:
            return len(split.images) // size  # the incomplete last batch waits for another epoch's order

        def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[Any]]:
            chosen = self.order[index * size : (index + 1) * size]
            random = np.random.default_rng((config.seed, self.epoch, index))
            images = split.images[chosen]
            if not changes.copies:
                images = augment(images, changes, random)
            return mix(images, labels[chosen], changes, random)

        def on_epoch_end(self) -> None:
            self.epoch += 1
            self.order = np.random.default_rng((config.seed, self.epoch)).permutation(len(split.images))

    return Batches()
