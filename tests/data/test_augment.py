"""Augmentation: what each transform does to real images, and what none may do."""

import numpy as np
import pytest
from scipy import ndimage

from fmnist_exp.config.schema import AugmentationConfig
from fmnist_exp.data.augment import ERASED_SIDE, FEW, TRANSFORMS, VARIANTS, affine, augment, examples, warp

VALUES = {"rotation": 30, "shear": 20, "zoom": 0.3, "shift": 3}
FIELDS = [(name, field) for name, transform in TRANSFORMS.items() for field in transform.fields]


def on(field: str) -> AugmentationConfig:
    """One field alone. One that is not in VALUES is switched on by the highest value it takes."""
    metadata = AugmentationConfig.model_fields[field].metadata
    highest = next((m.le for m in metadata if hasattr(m, "le")), True)
    return AugmentationConfig(**{field: VALUES.get(field, highest)})


def apply(field: str, images: np.ndarray, seed: int = 0, config: AugmentationConfig | None = None) -> np.ndarray:
    """Apply the transform that a field switches on, and no other."""
    transform = next(transform for transform in TRANSFORMS.values() if field in transform.fields)
    return transform.apply(images, config or on(field), np.random.default_rng(seed))


@pytest.fixture
def batch(small) -> np.ndarray:
    return small.train.images[:64]


def test_every_field_that_changes_an_image_has_a_transform():
    fields = {name for _, name in FIELDS}
    assert fields == set(AugmentationConfig.model_fields) - {"mixup", "cutmix", "copies"}
    assert len(FIELDS) == len(fields)


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_a_transform_keeps_shape_type_and_its_input(name, field, batch):
    before = batch.copy()
    after = TRANSFORMS[name].apply(batch, on(field), np.random.default_rng(0))
    assert (after.shape, after.dtype) == (batch.shape, np.uint8)
    assert not np.array_equal(after, before)
    after[...] = 7  # what comes out is the caller's own
    assert np.array_equal(batch, before)


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_the_generator_decides_what_a_transform_does(name, field, batch):
    first, again, other = (TRANSFORMS[name].apply(batch, on(field), np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_a_field_switches_on_its_transform_alone(name, field, batch):
    expected = TRANSFORMS[name].apply(batch, on(field), np.random.default_rng(0))
    assert np.array_equal(augment(batch, on(field), np.random.default_rng(0)), expected)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transform_at_zero_changes_nothing(name, batch):
    if name in ("horizontal_flip", "shift"):  # these are not called then
        return
    assert np.array_equal(TRANSFORMS[name].apply(batch, AugmentationConfig(), np.random.default_rng(0)), batch)


def test_all_off_changes_nothing(batch):
    assert np.array_equal(augment(batch, AugmentationConfig(), np.random.default_rng(0)), batch)


@pytest.mark.parametrize("size", [1, 64])
def test_all_on_at_once(batch, size):
    everything = AugmentationConfig(horizontal_flip=True, rotation=180, shear=60, zoom=0.9, shift=8, erasing=0.5)
    assert augment(batch[:size], everything, np.random.default_rng(0)).shape == (size, 28, 28)


def test_flip_mirrors_about_half_of_the_images(small):
    after = apply("horizontal_flip", small.train.images)
    same = (after == small.train.images).all(axis=(1, 2))
    mirrored = (after == small.train.images[:, :, ::-1]).all(axis=(1, 2))
    assert (same | mirrored).all()
    assert 0.4 < mirrored.mean() < 0.6


@pytest.mark.parametrize("most", [1, 3, 8])
def test_shift_moves_in_both_directions_and_fills_with_black(most):
    bright = np.random.default_rng(1).integers(1, 256, (200, 28, 28), np.uint8)  # no black: the border shows
    after = apply("shift", bright, config=AugmentationConfig(shift=most))
    moves = set()
    for before, moved in zip(bright, after, strict=True):
        rows, columns = (np.flatnonzero(moved.any(axis=axis)) for axis in (1, 0))
        down, right = (
            places[0] if places[0] else places[-1] - 27 for places in (rows, columns)
        )  # the black border shows the way
        expected = np.zeros_like(before)
        expected[max(down, 0) : 28 + down, max(right, 0) : 28 + right] = before[
            max(-down, 0) : 28 - down, max(-right, 0) : 28 - right
        ]
        assert np.array_equal(moved, expected)
        moves |= {("down", int(down)), ("right", int(right))}
    assert moves == {(way, step) for way in ("down", "right") for step in range(-most, most + 1)}


def test_erasing_changes_one_rectangle_only():
    flat = np.full((200, 28, 28), 256 // 2, np.uint8)
    after = apply("erasing", flat)
    sides = set()
    for image in after:
        changed = image != 128
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        sides |= {int(height), int(width)}
        # noise may hit the old value by chance: at most one pixel in 256 on average
        assert changed.sum() > 0.9 * height * width
    assert (min(sides), max(sides)) == ERASED_SIDE


@pytest.mark.parametrize("share", [0.2, 0.7])
def test_erasing_changes_its_share_of_the_images(small, share):
    after = apply("erasing", small.train.images, config=AugmentationConfig(erasing=share))
    hit = (after != small.train.images).any(axis=(1, 2)).mean()
    assert hit == pytest.approx(share, abs=0.06)


# the affine map: rotation, shear and zoom together


def exact(image: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """SciPy's answer; beyond the border it interpolates towards black, too."""
    offset = 13.5 - inverse @ np.full(2, 13.5)
    return ndimage.affine_transform(image.astype(float), inverse, offset, order=1, mode="grid-constant", cval=0)


@pytest.mark.parametrize("count", [1, FEW, FEW + 1, 64])
def test_warp_agrees_with_scipy(count, batch):
    random = np.random.default_rng(3)
    inverse = np.eye(2)[..., None] + random.uniform(-1.2, 1.2, (2, 2, count))
    expected = np.stack([exact(image, inverse[..., i]) for i, image in enumerate(batch[:count])])
    assert np.abs(warp(batch[:count], inverse) - expected).max() <= 1
    noise = random.integers(0, 256, (count, 28, 28), np.uint8)  # the steepest there is
    expected = np.stack([exact(image, inverse[..., i]) for i, image in enumerate(noise)])
    assert np.abs(warp(noise, inverse) - expected).max() <= 1


@pytest.mark.parametrize("far", [10.0, 400.0, -400.0])
def test_warp_finds_only_black_beyond_the_border(far):
    """However far, and also where the next image in the batch is white."""
    white = np.full((3, 28, 28), 255, np.uint8)
    inverse = np.repeat(np.eye(2)[..., None] * far, 3, axis=-1)
    expected = exact(white[0], inverse[..., 0])
    assert np.count_nonzero(expected) <= 4
    assert np.abs(warp(white, inverse) - expected).max() <= 1


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_quarter_turn_is_exact(quarters, batch):
    angle = quarters * np.pi / 2
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned = warp(batch, np.repeat(turn[..., None], len(batch), axis=-1))
    assert np.array_equal(turned, np.rot90(batch, quarters, axes=(1, 2)))


class Drawn:
    """Stands in for a generator: size, slant and angle as given, from -1 to 1."""

    def __init__(self, size: float = 0, slant: float = 0, angle: float = 0) -> None:
        self.values = np.array([size, slant, angle])

    def uniform(self, low: float, high: float, shape: tuple[int, int]) -> np.ndarray:
        assert (low, high) == (-1, 1)
        return np.repeat(self.values[:, None], shape[1], axis=1)


@pytest.mark.parametrize("degrees", [-90, -17, 30, 180])
def test_rotation_is_in_degrees(degrees, batch):
    turned = affine(batch, AugmentationConfig(rotation=abs(degrees)), Drawn(angle=np.sign(degrees)))
    expected = ndimage.rotate(batch.astype(float), degrees, axes=(1, 2), reshape=False, order=1, mode="grid-constant")
    assert np.abs(turned - expected).max() <= 1


@pytest.mark.parametrize("size", [-1, 1])
def test_zoom_scales_about_the_middle(size):
    square = np.zeros((1, 28, 28), np.uint8)
    square[:, 7:21, 7:21] = 255
    zoomed = affine(square, AugmentationConfig(zoom=0.5), Drawn(size=size))[0]
    assert zoomed.sum() / 255 == pytest.approx((14 * (1 + size * 0.5)) ** 2, rel=0.02)
    assert np.array_equal(zoomed, zoomed[::-1])
    assert np.array_equal(zoomed, zoomed[:, ::-1])


def test_shear_moves_each_row_sideways_as_far_as_its_height_says():
    column = np.zeros((1, 28, 28), np.uint8)
    column[:, 4:24, 12:16] = 200
    slanted = affine(column, AugmentationConfig(shear=30), Drawn(slant=1))[0].astype(float)
    rows = np.arange(4, 24)
    assert not slanted[:4].any()
    assert not slanted[24:].any()
    middles = (slanted[rows] * np.arange(28)).sum(axis=1) / slanted[rows].sum(axis=1)
    assert middles - 13.5 == pytest.approx(np.tan(np.radians(30)) * (rows - 13.5), abs=0.05)


def test_the_three_go_together_in_one_map(batch):
    """First the size, then the slant, then the turn."""
    config = AugmentationConfig(rotation=20, shear=15, zoom=0.2)
    changed = affine(batch, config, Drawn(size=-1, slant=0.5, angle=1))
    turn, slant = np.radians(20), np.tan(np.radians(7.5))
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])  # of (row, column)
    forward = rotation @ np.array([[1, 0], [slant, 1]]) * 0.8
    expected = np.stack([exact(image, np.linalg.inv(forward)) for image in batch])
    assert np.abs(changed - expected).max() <= 1


@pytest.mark.parametrize("field", ["rotation", "shear", "zoom"])
def test_an_affine_field_is_drawn_for_each_image_in_both_directions(field, batch):
    marked = np.zeros((300, 28, 28), np.uint8)
    marked[:, 4, 14] = 255  # above the middle, on its right
    changed = affine(marked, on(field), np.random.default_rng(0)).astype(float)
    weight = changed.sum(axis=(1, 2))
    axis = 1 if field == "zoom" else 2
    place = (changed.sum(axis=3 - axis) * np.arange(28)).sum(axis=1) / weight
    still = 4 if field == "zoom" else 14
    assert 0.4 < np.mean(place < still) < 0.6
    assert np.ptp(place) > 4
    assert len(np.unique(place)) > 200


# the examples for people


def test_the_first_image_of_each_class_is_shown(small):
    found = examples(small.train.images, small.train.labels, AugmentationConfig(), 0)
    assert list(found.labels) == list(range(10))
    first = [np.flatnonzero(small.train.labels == label)[0] for label in range(10)]
    assert np.array_equal(found.originals, small.train.images[first])
    assert len(found.augmented) == VARIANTS
    assert all(np.array_equal(variant, found.originals) for variant in found.augmented)  # nothing is on
    assert not found.mixed


@pytest.mark.parametrize("fields", [{"mixup": 1.0}, {"cutmix": 1.0}, {"mixup": 1.0, "cutmix": 1.0, "shift": 2}])
def test_the_same_seed_gives_the_same_mixed_images(small, fields):
    config = AugmentationConfig(**fields)
    found, again, other = (examples(small.train.images, small.train.labels, config, seed) for seed in (3, 3, 4))
    assert len(found.mixed) == 2
    for (images, labels), (same, _), (different, _) in zip(found.mixed, again.mixed, other.mixed, strict=True):
        assert np.array_equal(images, same)
        assert not np.array_equal(images, different)
        assert labels.sum(axis=1) == pytest.approx(1)
