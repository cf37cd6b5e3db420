"""Examples of what an experiment's augmentation does to images, for people to look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.config.schema import AugmentationConfig
from fmnist_exp.data.augment import Images, OneHot, augment, cutmix, mixup

VARIANTS = 8  # of each image
MIXED = 2  # columns of mixed images, if the experiment mixes


@dataclass(frozen=True, eq=False)
class Examples:
    """One image of each of C classes, and what training may make of it."""

    labels: NDArray[np.uint8]  # (C,)
    originals: Images  # (C, 28, 28)
    augmented: list[Images]  # VARIANTS times (C, 28, 28)
    mixed: list[tuple[Images, OneHot]]  # images (C, 28, 28) and their labels (C, 10), mixed with others of the C


def examples(images: Images, labels: NDArray[np.uint8], config: AugmentationConfig, seed: int) -> Examples:
    """Augment the first image of each class.

    Args:
        images: uint8 (N, 28, 28).
        labels: their classes (N,).
        config: the augmentation. With both mixup and cutmix, there is a column of each.
        seed: the random seed; the same seed gives the same images.
    """
    classes, first = np.unique(labels, return_index=True)
    originals = images[first]
    random = np.random.default_rng(seed)
    augmented = [augment(originals, config, random) for _ in range(VARIANTS)]
    one_hot = np.eye(10, dtype=np.float32)[classes]
    kinds = [(change, alpha) for change, alpha in ((mixup, config.mixup), (cutmix, config.cutmix)) if alpha]
    mixed = [
        change(augment(originals, config, random), one_hot, alpha, random) for change, alpha in (kinds * MIXED)[:MIXED]
    ]
    return Examples(classes, originals, augmented, mixed)
