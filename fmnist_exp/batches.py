"""Training images as Keras is fed them: shuffled, augmented, with labels as the loss wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.augment import augment
from fmnist_exp.config import ExperimentConfig, TrainingConfig
from fmnist_exp.data import Split

if TYPE_CHECKING:
    import keras


def targets(split: Split, training: TrainingConfig) -> NDArray[Any]:
    """Labels as the loss wants them: (N,) whole numbers, or (N, 10) one-hot."""
    return np.eye(10, dtype=np.float32)[split.labels] if training.labels == "one_hot" else split.labels


def batches(config: ExperimentConfig, split: Split, epochs_done: int = 0) -> keras.utils.PyDataset:
    """Shuffled, augmented batches: the order and the augmentation depend on seed and epoch alone.

    `epochs_done` is where a fit that was cut off goes on.
    """
    from keras.utils import PyDataset

    labels, size = targets(split, config.training), config.training.batch_size

    class Batches(PyDataset):
        def __init__(self) -> None:
            super().__init__(workers=1)
            self.epoch = epochs_done - 1
            self.on_epoch_end()

        def __len__(self) -> int:
            return len(split.images) // size  # the incomplete last batch waits for another epoch's order

        def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[Any]]:
            chosen = self.order[index * size : (index + 1) * size]
            random = np.random.default_rng((config.seed, self.epoch, index))
            return augment(split.images[chosen], config.augmentation, random), labels[chosen]

        def on_epoch_end(self) -> None:
            self.epoch += 1
            self.order = np.random.default_rng((config.seed, self.epoch)).permutation(len(split.images))

    return Batches()
