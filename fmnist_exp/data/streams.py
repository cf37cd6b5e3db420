"""Independent streams of random numbers, each for one purpose, from the seed of an experiment."""

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """Purposes of random numbers. Do not renumber them, because that changes the result of every seed."""

    SPLIT = 1  # training and validation images
    GATE = 2  # images of the gate
    ORDER = 3  # of the images in an epoch
    AUGMENTATION = 4  # of a batch
    COPIES = 5  # augmented images that are made before the fit
    PREVIEW = 6  # the augmented images in a figure
    CORRUPTION = 7  # of the test images
    SAMPLER = 8  # settings of trials


def generator(stream: Stream, seed: int, *keys: int) -> np.random.Generator:
    """Return the random numbers of a stream that `keys` name, for example those of an epoch and a batch.

    NumPy mixes a spawn key into the state after the seed. A tuple as the seed would not do: NumPy fills it up with
    zeros, so that (seed, epoch) and (seed, epoch, 0) give the same numbers.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, *keys)))
