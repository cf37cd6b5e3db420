"""Augmentation of whole batches of uint8 images, in NumPy, in the caller's random order."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.config import AugmentationConfig

Images = NDArray[np.uint8]
Transform = Callable[[Images, AugmentationConfig, np.random.Generator], Images]

ERASED_SIDE = (6, 14)  # pixels; the shortest and the longest side of an erased rectangle


def horizontal_flip(images: Images, config: AugmentationConfig, random: np.random.Generator) -> Images:
    """Mirror each image, left to right, with probability one half."""
    flipped = random.random(len(images)) < 0.5
    images = images.copy()
    images[flipped] = images[flipped, :, ::-1]
    return images


def shift(images: Images, config: AugmentationConfig, random: np.random.Generator) -> Images:
    """Move each image by up to `config.shift` pixels in both directions; what comes in at the border is black."""
    most = config.shift
    padded = np.pad(images, ((0, 0), (most, most), (most, most)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[1:], axis=(1, 2))  # (B, 2m+1, 2m+1, 28, 28)
    down, right = random.integers(0, 2 * most + 1, (2, len(images)))
    moved: Images = windows[np.arange(len(images)), down, right]
    return moved


def erasing(images: Images, config: AugmentationConfig, random: np.random.Generator) -> Images:
    """Fill one random rectangle with noise, with probability `config.erasing` (Zhong et al. 2017, Random Erasing)."""
    count, height, width = len(images), *images.shape[1:]
    side = random.integers(ERASED_SIDE[0], ERASED_SIDE[1] + 1, (2, count, 1))
    top = random.integers(0, height - side[0] + 1)
    left = random.integers(0, width - side[1] + 1)
    erased = random.random((len(images),)) < config.erasing
    row, column = np.arange(height), np.arange(width)
    inside = ((row >= top) & (row < top + side[0]))[:, :, None] & ((column >= left) & (column < left + side[1]))[
        :, None
    ]
    inside &= erased[:, None, None]  # (B, 28, 28)
    noise = random.integers(0, 256, images.shape, dtype=np.uint8)
    return np.where(inside, noise, images)


# in this order: what is erased must neither move nor turn
TRANSFORMS: dict[str, Transform] = {"horizontal_flip": horizontal_flip, "shift": shift, "erasing": erasing}


def augment(images: Images, config: AugmentationConfig, random: np.random.Generator) -> Images:
    """Apply every transform that `config` turns on. Takes uint8 (batch, 28, 28), returns new ones."""
    for name, transform in TRANSFORMS.items():
        if getattr(config, name):
            images = transform(images, config, random)
    return images
