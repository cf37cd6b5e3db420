"""Augmentation of whole batches of uint8 images in NumPy, with the caller's random generator."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.config.schema import AugmentationConfig
from fmnist_exp.data.streams import Stream, generator

Images = NDArray[np.uint8]  # (B, 28, 28)
OneHot = NDArray[np.float32]  # (B, 10)
Mixed = tuple[Images, OneHot]
Mixer = Callable[[Images, OneHot, float, np.random.Generator], Mixed]

SIDE = 28  # pixels
PITCH = SIDE + 1  # a row and the black pixel before it, which also ends the row above
FEW = 16  # images; their temporary arrays stay in the cache, and below the size for which malloc asks the kernel
ERASED_SIDE = (6, 14)  # pixels; the shortest and the longest side of an erased rectangle
EVEN_BYTES = 0x00FF00FF  # of a 32-bit word
VARIANTS = 8  # of each image among the examples
MIXED_COLUMNS = 2  # of mixed images among the examples, if the experiment mixes


def horizontal_flip(images: Images, config: AugmentationConfig, random: np.random.Generator) -> Images:
    """Mirror each image, left to right, with probability one half."""
    flipped = random.random(len(images)) < 0.5
    images = images.copy()
    images[flipped] = images[flipped, :, ::-1]
    return images


def affine(images: Images, config: AugmentationConfig, random: np.random.Generator) -> Images:
    """Scale, shear and rotate each image about its centre, with one interpolation for all three."""
    size, slant, angle = random.uniform(-1, 1, (3, len(images)))
    size = 1 + config.zoom * size
    slant = np.tan(np.radians(config.shear * slant))
    angle = np.radians(config.rotation * angle)
    cos, sin = np.cos(angle) / size, np.sin(angle) / size
    # the inverse of the rotation, then that of the shear, then that of the scaling
    inverse = np.array([[cos, sin], [-sin - slant * cos, cos - slant * sin]])  # (2, 2, B)
    return warp(images, inverse)


def warp(images: Images, inverse: NDArray[np.float64]) -> Images:
    """Map images linearly about their centres, with bilinear interpolation and black outside.

    `inverse`, (2, 2, B), maps the row and column of a pixel of the result, counted from the centre, to the place in the
    image where its value is taken from. The computation is in fixed point; every pixel is within one grey level of the
    exact value.
    """
    centre = (SIDE - 1) / 2
    by_row, by_column = (inverse[..., None] * (np.arange(SIDE) - centre)).swapaxes(0, 1)  # (2, B, 28) each
    by_row += centre + 1  # the pixel of the border
    by_row[1] += 1 / 512  # columns are rounded to 256ths
    by_row, by_column = ((part * 65536).astype(np.int32) for part in (by_row, by_column))
    warped = np.empty_like(images)
    for start in range(0, len(images), FEW):
        few = slice(start, start + FEW)
        source = by_row[:, few, :, None] + by_column[:, few, None]  # (2, 16, 28, 28), 65,536ths of a pixel
        np.clip(source, 0, PITCH << 16, out=source)  # the border is black, and so is everything beyond it
        warped[few] = _sample(images[few], *source.view(np.uint32))
    return warped


def _sample(images: Images, row: NDArray[np.uint32], column: NDArray[np.uint32]) -> NDArray[np.integer]:
    """Interpolate bilinearly, with SWAR arithmetic: several small numbers share one 32-bit word.

    With u and v for the fractions of row and column, and the four neighbouring pixels

        p00 p01    upper = p00 + (p01 - p00) v
        p10 p11    lower = p10 + (p11 - p10) v    value = upper + (lower - upper) u

    one look-up fetches a word with all four pixels, and one multiplication by v serves both rows: the word's lower half
    holds the upper row, its upper half the lower row. If a difference in the lower half is negative, it borrows from
    the upper half, and the sum gives that back.

    `row` and `column`, (B, 28, 28), are places in the bordered images: the high 16 bits are the pixel, the low 16 bits
    of `row` are u, and the high 8 of the low 16 bits of `column` are v.
    """
    cell = (row >> 16) * np.uint32(PITCH)
    cell += column >> 16
    cell += np.arange(0, len(images) * PITCH**2, PITCH**2, dtype=np.uint32)[:, None, None]
    right: NDArray[np.uint32] = _neighbours(images).take(cell)  # bytes p11 p10 p01 p00, the highest first
    left = right & EVEN_BYTES  # 0 p10 0 p00
    right >>= 8
    right &= EVEN_BYTES  # 0 p11 0 p01
    right -= left
    right *= (column >> 8) & 0xFF
    left <<= 8
    left += right  # lower, upper: 16 bits each, in 256ths
    upper = left & 0xFFFF
    lower = left >> 16
    lower -= upper
    lower *= row & 0xFFFF
    upper <<= 16
    upper += lower  # the value in the high 8 bits, its fraction in the low 24
    upper += 1 << 23  # rounds
    upper >>= 24
    return upper


def _neighbours(images: Images) -> NDArray[np.uint32]:
    """Return a word for each pixel of the bordered images; its bytes, lowest first, are p00 p01 p10 p11."""
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
    """Move each image by up to `config.shift` pixels in both directions."""
    most = config.shift
    up, left = random.integers(0, 2 * most + 1, (2, len(images))) - most
    return shifted(images, -up, -left, most)


def shifted(images: Images, down: NDArray[np.int64], right: NDArray[np.int64], most: int) -> Images:
    """Return the images moved by `down` and `right` pixels, (B,) from -most to most; black comes in at the border."""
    padded = np.zeros((len(images), SIDE + 2 * most, SIDE + 2 * most), np.uint8)
    padded[:, most:-most, most:-most] = images  # np.pad is slower
    windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[1:], axis=(1, 2))  # (B, 2m+1, 2m+1, 28, 28)
    moved: Images = windows[np.arange(len(images)), most - down, most - right]
    return moved


def erasing(images: Images, config: AugmentationConfig, random: np.random.Generator) -> Images:
    """Fill one random rectangle with noise, with probability `config.erasing` (Zhong et al. 2017, Random Erasing)."""
    sides = random.integers(ERASED_SIDE[0], ERASED_SIDE[1] + 1, (2, len(images)))
    corner = random.integers(0, SIDE - sides + 1)
    sides[:, random.random(len(images)) >= config.erasing] = 0
    noise = random.integers(0, 256, images.shape, dtype=np.uint8)
    return np.where(rectangles(corner, corner + sides), noise, images)


def rectangles(first: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return a mask (B, 28, 28) of one rectangle per image; `first`, inclusive, and `end`, exclusive, are (2, B)."""
    pixel = np.arange(SIDE)
    rows, columns = (pixel >= first[..., None]) & (pixel < end[..., None])  # (B, 28) each
    inside: NDArray[np.bool_] = rows[:, :, None] & columns[:, None]
    return inside


class Transform(NamedTuple):
    """A transform of images. It is applied if any of its fields is not zero."""

    apply: Callable[[Images, AugmentationConfig, np.random.Generator], Images]
    fields: tuple[str, ...]


# in this order, since an erased rectangle must neither move nor turn
TRANSFORMS = {
    "horizontal_flip": Transform(horizontal_flip, ("horizontal_flip",)),
    "affine": Transform(affine, ("rotation", "shear", "zoom")),
    "shift": Transform(shift, ("shift",)),
    "erasing": Transform(erasing, ("erasing",)),
}


def augment(images: Images, config: AugmentationConfig, random: np.random.Generator) -> Images:
    """Apply every transform that `config` switches on; the given images stay as they are."""
    for transform in TRANSFORMS.values():
        if any(getattr(config, field) for field in transform.fields):
            images = transform.apply(images, config, random)
    return images


def mixup(images: Images, labels: OneHot, alpha: float, random: np.random.Generator) -> Mixed:
    """Blend each image and label with another pair, by a weight from Beta(alpha, alpha) (mixup, Zhang et al. 2017)."""
    partner = random.permutation(len(images))
    share = np.rint(random.beta(alpha, alpha, len(images)) * 256).astype(np.uint16)  # in 256ths, also for the labels
    blend = images * share[:, None, None]
    blend += images[partner] * (256 - share)[:, None, None]
    blend += 128  # rounds
    blend >>= 8
    return blend.astype(np.uint8), _blend(labels, partner, share / np.float32(256))


def cutmix(images: Images, labels: OneHot, alpha: float, random: np.random.Generator) -> Mixed:
    """Paste a rectangle of another image into each image (Yun et al. 2019, CutMix), and blend the labels by area.

    The share of the image that is kept is drawn from Beta(alpha, alpha). The rectangle's centre is random too, and the
    part of the rectangle beyond the border is cut off.
    """
    partner = random.permutation(len(images))
    side = np.rint(SIDE * np.sqrt(1 - random.beta(alpha, alpha, len(images)))).astype(int)
    first = random.integers(0, SIDE, (2, len(images))) - side // 2
    first, end = first.clip(0, SIDE), (first + side).clip(0, SIDE)
    share = 1 - np.prod(end - first, axis=0) / np.float32(SIDE**2)
    return np.where(rectangles(first, end), images[partner], images), _blend(labels, partner, share)


def _blend(labels: OneHot, partner: NDArray[np.int64], share: NDArray[np.floating]) -> OneHot:
    share = share.astype(np.float32)[:, None]
    return share * labels + (1 - share) * labels[partner]


def _mixers(config: AugmentationConfig) -> list[tuple[Mixer, float]]:
    """Return the ways of mixing that are switched on, each with its alpha."""
    return [(mixer, alpha) for mixer, alpha in ((mixup, config.mixup), (cutmix, config.cutmix)) if alpha]


def mix(images: Images, labels: OneHot, config: AugmentationConfig, random: np.random.Generator) -> Mixed:
    """Apply mixup or CutMix, whichever is switched on; if both are, draw one of them for the whole batch."""
    choices = _mixers(config)
    if not choices:
        return images, labels
    mixer, alpha = choices[random.integers(len(choices))] if len(choices) > 1 else choices[0]
    return mixer(images, labels, alpha, random)


@dataclass(frozen=True, eq=False)
class Examples:
    """One image of each of C classes, and variants of it as training may see them, to be looked at."""

    labels: NDArray[np.uint8]  # (C,)
    originals: Images  # (C, 28, 28)
    augmented: list[Images]  # VARIANTS times (C, 28, 28)
    mixed: list[Mixed]  # images (C, 28, 28) and their labels (C, 10), mixed with others of the C


def examples(images: Images, labels: NDArray[np.uint8], config: AugmentationConfig, seed: int) -> Examples:
    """Augment the first image of each class; if `config` has both mixup and CutMix, there is a column of each."""
    classes, first = np.unique(labels, return_index=True)
    originals = images[first]
    random = generator(Stream.PREVIEW, seed)
    augmented = [augment(originals, config, random) for _ in range(VARIANTS)]
    one_hot = np.eye(10, dtype=np.float32)[classes]
    mixers = (_mixers(config) * MIXED_COLUMNS)[:MIXED_COLUMNS]
    mixed = [mixer(augment(originals, config, random), one_hot, alpha, random) for mixer, alpha in mixers]
    return Examples(classes, originals, augmented, mixed)
