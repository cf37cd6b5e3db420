"""Corruptions of images at five severities, for whole batches in NumPy and SciPy.

Each corruption takes uint8 images (N, 28, 28), a severity from 1 to 5 and a generator of random numbers, and returns
pixels of any number type, which `corrupt` rounds and clips. A new one is a function and an entry of CORRUPTIONS.
"""

import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, rotate

from fmnist_exp.data.augment import shifted
from fmnist_exp.data.streams import Stream, generator

Images = NDArray[np.uint8]
Pixels = NDArray[np.floating] | Images
Corruption = Callable[[Images, int, np.random.Generator], Pixels]

SEVERITIES = (1, 2, 3, 4, 5)


def noise(images: Images, severity: int, random: np.random.Generator) -> Pixels:
    """Add Gaussian noise to every pixel."""
    deviation = (15, 30, 50, 75, 100)[severity - 1]  # of 255
    return images + random.standard_normal(images.shape, np.float32) * np.float32(deviation)


def blur(images: Images, severity: int, random: np.random.Generator) -> Pixels:
    """Blur each image with a Gaussian filter."""
    deviation = (0.6, 0.9, 1.3, 1.8, 2.5)[severity - 1]  # pixels
    return np.asarray(gaussian_filter(images.astype(np.float32), (0, deviation, deviation), mode="constant"))


def shift(images: Images, severity: int, random: np.random.Generator) -> Pixels:
    """Move each image in one of eight directions; black comes in at the border."""
    most = (1, 2, 4, 6, 8)[severity - 1]  # pixels
    directions = np.array([(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b])
    up, left = most * directions[random.integers(len(directions), size=len(images))].T
    return shifted(images, -up, -left, most)


def rotation(images: Images, severity: int, random: np.random.Generator) -> Pixels:
    """Rotate each image about its centre, half of them to the left."""
    angle = (8, 16, 28, 42, 60)[severity - 1]  # degrees
    left = random.random(len(images)) < 0.5
    rotated = np.empty(images.shape, np.float32)
    for chosen, sign in ((left, 1), (~left, -1)):
        part = images[chosen].astype(np.float32)
        rotated[chosen] = rotate(part, sign * angle, axes=(1, 2), reshape=False, order=1)
    return rotated


def brightness(images: Images, severity: int, random: np.random.Generator) -> Pixels:
    """Make every pixel brighter by the same amount, up to white."""
    return images + np.float32((25, 50, 80, 115, 150)[severity - 1])  # of 255


def contrast(images: Images, severity: int, random: np.random.Generator) -> Pixels:
    """Move every pixel towards the mean of its image."""
    kept = np.float32((0.7, 0.5, 0.35, 0.2, 0.1)[severity - 1])
    mean = images.mean(axis=(1, 2), keepdims=True, dtype=np.float32)
    return np.asarray(mean + (images - mean) * kept)


def inversion(images: Images, severity: int, random: np.random.Generator) -> Pixels:
    """Invert the pixels above a threshold: the brightest ones at severity 1, the whole image at severity 5."""
    threshold = (210, 160, 110, 55, 0)[severity - 1]
    return np.where(images >= threshold, 255 - images, images)


def occlusion(images: Images, severity: int, random: np.random.Generator) -> Pixels:
    """Cover a square at a random position in each image with grey."""
    side = (6, 9, 12, 15, 18)[severity - 1]  # pixels
    corner = random.random((2, len(images), 1)) * (np.array(images.shape[1:])[:, None, None] - side + 1)
    top, left = corner.astype(int)
    row, column = np.arange(images.shape[1]), np.arange(images.shape[2])
    covered = ((row >= top) & (row < top + side))[:, :, None] & ((column >= left) & (column < left + side))[:, None]
    return np.where(covered, np.uint8(128), images)  # (B, 28, 28)


CORRUPTIONS: dict[str, Corruption] = {
    function.__name__: function
    for function in (noise, blur, shift, rotation, brightness, contrast, inversion, occlusion)
}


def corrupt(name: str, images: Images, severity: int, seed: int) -> Images:
    """Return a corrupted copy of uint8 images (N, 28, 28).

    The random numbers depend on the seed and the name only. So severities differ in strength alone, and a new
    corruption does not change the others.
    """
    random = generator(Stream.CORRUPTION, seed, zlib.crc32(name.encode()))
    corrupted = CORRUPTIONS[name](images, severity, random)
    return np.clip(np.rint(corrupted), 0, 255).astype(np.uint8)
