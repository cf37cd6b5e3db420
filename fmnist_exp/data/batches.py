"""Batches of training images for Keras: shuffled, augmented, with labels in the form that the loss takes."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from fmnist_exp.config.schema import ExperimentConfig, TrainingConfig
from fmnist_exp.data.augment import augment, mix
from fmnist_exp.data.dataset import Split
from fmnist_exp.data.streams import Stream, generator

Targets = NDArray[Any]  # (N,) whole numbers, or (N, 10) one-hot

COPIED_AT_ONCE = 1000  # images; another number needs other memory, and gives other copies for the same seed


def targets(split: Split, training: TrainingConfig) -> Targets:
    """Return the labels in the form that the loss takes."""
    return np.eye(10, dtype=np.float32)[split.labels] if training.labels == "one_hot" else split.labels


def with_copies(config: ExperimentConfig, split: Split) -> Split:
    """Return the images, then `augmentation.copies` augmented copies of each. The copies depend only on the seed."""
    copies, count = config.augmentation.copies, len(split.images)
    random = generator(Stream.COPIES, config.seed)
    images = np.empty(((1 + copies) * count, *split.images.shape[1:]), np.uint8)
    images[:count] = split.images
    for copy in range(1, copies + 1):
        for start in range(0, count, COPIED_AT_ONCE):
            part = split.images[start : start + COPIED_AT_ONCE]
            first = copy * count + start
            images[first : first + len(part)] = augment(part, config.augmentation, random)
    return Split(split.name, images, np.tile(split.labels, 1 + copies))


class Batches(keras.utils.PyDataset):
    """Shuffled, augmented batches, whose order and augmentation depend on the seed and the epoch alone.

    With `augmentation.copies`, each epoch shows the originals and the copies, which are made once, at the start.
    """

    def __init__(self, config: ExperimentConfig, split: Split, epochs_done: int = 0) -> None:
        """Prepare the batches of a fit, which resumes after `epochs_done` epochs."""
        # Keras' own queue: with one worker it uses TensorFlow's, which prepares no batch ahead, and which at its end
        # makes about every second epoch 4 seconds longer
        super().__init__(workers=2)
        self._augmentation, self._size, self._seed = config.augmentation, config.training.batch_size, config.seed
        self._split = with_copies(config, split) if config.augmentation.copies else split
        self._labels = targets(self._split, config.training)
        self._epoch = epochs_done - 1
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self._split.images) // self._size  # the incomplete last batch is left out

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], Targets]:
        chosen = self._order[index * self._size : (index + 1) * self._size]
        random = generator(Stream.AUGMENTATION, self._seed, self._epoch, index)
        images = self._split.images[chosen]
        if not self._augmentation.copies:
            images = augment(images, self._augmentation, random)
        return mix(images, self._labels[chosen], self._augmentation, random)

    def on_epoch_end(self) -> None:
        """Draw the order of the next epoch."""
        self._epoch += 1
        self._order = generator(Stream.ORDER, self._seed, self._epoch).permutation(len(self._split.images))
