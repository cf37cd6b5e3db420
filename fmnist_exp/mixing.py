"""Mixing of whole batches: each image with another of its batch, and their labels in proportion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.augment import SIDE, Images, rectangles
from fmnist_exp.config import AugmentationConfig

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
