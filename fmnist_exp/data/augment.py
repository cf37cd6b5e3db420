"""Augmentation of whole batches of uint8 images, in NumPy, in the caller's random order."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.config.schema import AugmentationConfig

Images = NDArray[np.uint8]

SIDE = 28  # pixels
PITCH = SIDE + 1  # a row and the black pixel before it, which is also the one after the row above
FEW = 16  # images; their temporaries stay in the cache, and below the size for which malloc asks the kernel
ERASED_SIDE = (6, 14)  # pixels; the shortest and the longest side of an erased rectangle


def horizontal_flip(images: Images, config: AugmentationConfig, random: np.random.Generator) -> Images:
    """Mirror each image, left to right, with probability one half."""
    flipped = random.random(len(images)) < 0.5
    images = images.copy()
    images[flipped] = images[flipped, :, ::-1]
    return images


def affine(images: Images, config: AugmentationConfig, random: np.random.Generator) -> Images:
    """Change each image's size, slant it sideways and turn it, all about its middle, in one sampling."""
    size, slant, angle = random.uniform(-1, 1, (3, len(images)))
    size = 1 + config.zoom * size
    slant = np.tan(np.radians(config.shear * slant))
    angle = np.radians(config.rotation * angle)
    cos, sin = np.cos(angle) / size, np.sin(angle) / size
    # the turn undone, then the slant, then the size
    inverse = np.array([[cos, sin], [-sin - slant * cos, cos - slant * sin]])  # (2, 2, B)
    return warp(images, inverse)


def warp(images: Images, inverse: NDArray[np.float64]) -> Images:
    """Take each pixel from where `inverse` (2, 2, B) maps it, in rows and columns from the middle; black outside.

    Bilinear and in fixed point, which is within one grey level of exact.
    """
    middle = (SIDE - 1) / 2
    by_row, by_column = (inverse[..., None] * (np.arange(SIDE) - middle)).swapaxes(0, 1)  # (2, B, 28) each
    by_row += middle + 1  # the border's pixel
    by_row[1] += 1 / 512  # columns are rounded to 256ths
    by_row, by_column = ((part * 65536).astype(np.int32) for part in (by_row, by_column))
    warped = np.empty_like(images)
    for start in range(0, len(images), FEW):
        few = slice(start, start + FEW)
        source = by_row[:, few, :, None] + by_column[:, few, None]  # (2, 16, 28, 28), 65,536ths of a pixel
        np.clip(source, 0, PITCH << 16, out=source)  # on the border all is black
        warped[few] = _sample(images[few], *source.view(np.uint32))
    return warped


def _sample(images: Images, row: NDArray[np.uint32], column: NDArray[np.uint32]) -> NDArray[np.integer]:
    """Interpolate: a pixel and its three neighbours travel as the bytes of one number.

    One look-up fetches all four, and one multiplication weighs two of them. Where a difference is negative, it borrows
    from the half above, and the sum gives that back.
    """
    cell = (row >> 16) * np.uint32(PITCH)
    cell += column >> 16
    cell += np.arange(0, len(images) * PITCH**2, PITCH**2, dtype=np.uint32)[:, None, None]
    right: NDArray[np.uint32] = _neighbours(images).take(cell)
    left = right & 0x00FF00FF  # the lower one in the upper half
    right >>= 8
    right &= 0x00FF00FF
    right -= left
    right *= (column >> 8) & 0xFF
    left <<= 8
    left += right
    upper = left & 0xFFFF
    lower = left >> 16
    lower -= upper
    lower *= row & 0xFFFF
    upper <<= 16
    upper += lower
    upper += 1 << 23  # one half
    upper >>= 24
    return upper


def _neighbours(images: Images) -> NDArray[np.uint32]:
    """Each pixel of the bordered images with its right, lower and lower right neighbour, from the lowest byte up."""
    pixels = len(images) * PITCH**2
    flat = np.zeros(pixels + 2 * PITCH + 3, np.uint8)
    flat[:pixels].reshape(len(images), PITCH, PITCH)[:, 1:, 1:] = images
    wide = flat.astype(np.uint16)
    pairs = wide[1:] << 8
    pairs |= wide[:-1]
    four = pairs[PITCH:].astype(np.uint32)
    four <<= 16
    four |= pairs[:-PITCH]
    return four


def shift(images: Images, config: AugmentationConfig, random: np.random.Generator) -> Images:
    """Move each image by up to `config.shift` pixels in both directions; what comes in at the border is black."""
    most = config.shift
    padded = np.zeros((len(images), SIDE + 2 * most, SIDE + 2 * most), np.uint8)
    padded[:, most:-most, most:-most] = images  # np.pad is slower
    windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[1:], axis=(1, 2))  # (B, 2m+1, 2m+1, 28, 28)
    down, right = random.integers(0, 2 * most + 1, (2, len(images)))
    moved: Images = windows[np.arange(len(images)), down, right]
    return moved


def erasing(images: Images, config: AugmentationConfig, random: np.random.Generator) -> Images:
    """Fill one random rectangle with noise, with probability `config.erasing` (Zhong et al. 2017, Random Erasing)."""
    sides = random.integers(ERASED_SIDE[0], ERASED_SIDE[1] + 1, (2, len(images)))
    corner = random.integers(0, SIDE - sides + 1)
    sides[:, random.random(len(images)) >= config.erasing] = 0
    noise = random.integers(0, 256, images.shape, dtype=np.uint8)
    return np.where(rectangles(corner, corner + sides), noise, images)


def rectangles(first: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.bool_]:
    """A mask (B, 28, 28) of the pixels from `first` to before `end`, both (2, B): rows, columns."""
    place = np.arange(SIDE)
    rows, columns = (place >= first[..., None]) & (place < end[..., None])  # (B, 28) each
    inside: NDArray[np.bool_] = rows[:, :, None] & columns[:, None]
    return inside


class Transform(NamedTuple):
    """A change of images (B, 28, 28), and the fields that switch it on: any of them that is not zero."""

    apply: Callable[[Images, AugmentationConfig, np.random.Generator], Images]
    fields: tuple[str, ...]


# in this order: what is erased must neither move nor turn
TRANSFORMS = {
    "horizontal_flip": Transform(horizontal_flip, ("horizontal_flip",)),
    "affine": Transform(affine, ("rotation", "shear", "zoom")),
    "shift": Transform(shift, ("shift",)),
    "erasing": Transform(erasing, ("erasing",)),
}


def augment(images: Images, config: AugmentationConfig, random: np.random.Generator) -> Images:
    """Apply every transform that `config` turns on. Takes uint8 (batch, 28, 28), returns new ones."""
    for transform in TRANSFORMS.values():
        if any(getattr(config, field) for field in transform.fields):
            images = transform.apply(images, config, random)
    return images


OneHot = NDArray[np.float32]  # (B, 10)


def mixup(images: Images, labels: OneHot, alpha: float, random: np.random.Generator) -> tuple[Images, OneHot]:
    """Blend each image with another (Zhang et al. 2017, mixup); its own share is drawn from Beta(alpha, alpha)."""
    partner = random.permutation(len(images))
    own = np.rint(random.beta(alpha, alpha, len(images)) * 256).astype(np.uint16)  # in 256ths, also for the labels
    blend = images * own[:, None, None]
    blend += images[partner] * (256 - own)[:, None, None]
    blend += 128  # one half
    blend >>= 8
    return blend.astype(np.uint8), _blend(labels, partner, own / np.float32(256))


def cutmix(images: Images, labels: OneHot, alpha: float, random: np.random.Generator) -> tuple[Images, OneHot]:
    """Paste a rectangle of another into each image (Yun et al. 2019, CutMix); the area decides about the labels.

    The part that stays is drawn from Beta(alpha, alpha). Of a rectangle about a random place, what lies beyond the
    border is lost.
    """
    partner = random.permutation(len(images))
    side = np.rint(SIDE * np.sqrt(1 - random.beta(alpha, alpha, len(images)))).astype(int)
    first = random.integers(0, SIDE, (2, len(images))) - side // 2
    first, end = first.clip(0, SIDE), (first + side).clip(0, SIDE)
    own = 1 - np.prod(end - first, axis=0) / np.float32(SIDE**2)
    return np.where(rectangles(first, end), images[partner], images), _blend(labels, partner, own)


def _blend(labels: OneHot, partner: NDArray[np.int64], own: NDArray[np.floating]) -> OneHot:
    own = own.astype(np.float32)[:, None]
    return own * labels + (1 - own) * labels[partner]


def mix(
    images: Images, labels: OneHot, config: AugmentationConfig, random: np.random.Generator
) -> tuple[Images, OneHot]:
    """Apply mixup or cutmix, whichever is on; where both are, one of them at random for the whole batch."""
    choices = [(change, alpha) for change, alpha in ((mixup, config.mixup), (cutmix, config.cutmix)) if alpha]
    if not choices:
        return images, labels
    change, alpha = choices[random.integers(len(choices))] if len(choices) > 1 else choices[0]
    return change(images, labels, alpha, random)
