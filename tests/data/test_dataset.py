"""Real images are found in the first source that works, cached, and divided into the same splits by the same seeds."""

import functools
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from fmnist_exp.config.schema import DataConfig
from fmnist_exp.data import dataset, sources
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.data.sources import Source
from fmnist_exp.errors import WorkError

pytestmark = pytest.mark.usefixtures("own_cache")


# one folder, and the cache


def test_named_idx_folder(real_folder):
    loaded = dataset.load(DataConfig(source=str(real_folder)), seed=0)
    assert loaded.source == str(real_folder)
    for split, count in (
        (loaded.train, 48_000),
        (loaded.validation, 6_000),
        (loaded.gate, 6_000),
        (loaded.test, 10_000),
    ):
        assert split.images.shape == (count, 28, 28)
        assert split.images.dtype == split.labels.dtype == np.uint8
        assert np.array_equal(np.bincount(split.labels), [count // 10] * 10)
        assert len(split.digest) == 32
    mean = np.concatenate([loaded.train.images, loaded.validation.images, loaded.gate.images]).mean() / 255
    assert mean == pytest.approx(0.286, abs=5e-4)


def test_second_start_is_answered_by_the_cache(real_folder, own_cache, monkeypatch):
    config = DataConfig(source=str(real_folder))
    first = dataset.load(config, seed=3)
    monkeypatch.setattr(dataset, "read_files", None)  # a second parse would fail
    second = dataset.load(config, seed=3)
    assert [s.digest for s in (first.train, first.validation, first.test)] == [
        s.digest for s in (second.train, second.validation, second.test)
    ]
    assert second.source == first.source
    assert second.train.images.flags.writeable
    assert len(list(own_cache.iterdir())) == 1


# the chain


def test_the_first_source_that_works_is_used_and_cached(real_folder, tmp_path):
    def never(_: Path) -> Path:
        raise AssertionError("asked although an earlier source works")

    (tmp_path / "empty").mkdir()
    places = [
        Source("none", functools.partial(sources.debian_folder, folder=tmp_path / "missing"), "none"),
        Source("hollow", functools.partial(sources.debian_folder, folder=tmp_path / "empty"), "hollow"),
        Source("good", functools.partial(sources.debian_folder, folder=real_folder), "the good one"),
        Source("later", never, "later"),
    ]
    assert dataset.load(DataConfig(), 0, places).source == "the good one"
    assert dataset.load(DataConfig(), 0, sources=[]).source == "the good one"


def test_when_nothing_works_each_source_and_its_reason_is_listed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "*")
    missing = tmp_path / "missing"
    places = [
        Source("the package's folder", functools.partial(sources.debian_folder, folder=missing), ""),
        Source("the download", functools.partial(sources.download, address="http://127.0.0.1:9/"), ""),
        Source("the archive", sources.debian_archive, ""),
    ]
    with pytest.raises(WorkError) as raised:
        dataset.load(DataConfig(), 0, places)
    cache, package, download, *rest = str(raised.value).split("; ")
    assert cache == f"Fashion-MNIST was not found (tried the cache {tmp_path / 'cache'}: empty"
    assert package == "the package's folder: no such folder"
    assert download.startswith("the download: ")
    assert "refused" in download
    assert rest[0] == "the archive: this machine has no apt-get)"
    assert rest[-1].endswith("name the folder with --data.source")


# the split


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.15, 0.5])
def test_split_is_stratified_as_scikit_learn_does_it(fraction):
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(10, dtype=np.uint8), 600))
    train, validation = dataset.split_indices(labels, fraction, np.random.default_rng(0))
    assert np.array_equal(np.sort(np.concatenate([train, validation])), np.arange(6_000))
    theirs = train_test_split(labels, test_size=fraction, stratify=labels, random_state=0)
    assert np.array_equal(np.bincount(labels[train]), np.bincount(theirs[0]))
    assert np.array_equal(np.bincount(labels[validation]), np.bincount(theirs[1]))


@pytest.mark.parametrize("fraction", [0.01, 0.07, 0.1, 0.33, 0.5])
def test_split_of_uneven_classes(fraction):
    counts = np.array([2, 3, 5, 8, 13, 21, 34, 55, 89, 144])
    labels = np.repeat(np.arange(10, dtype=np.uint8), counts)
    train, validation = dataset.split_indices(labels, fraction, np.random.default_rng(0))
    assert len(validation) == round(fraction * len(labels))
    assert np.abs(np.bincount(labels[validation], minlength=10) - counts * fraction).max() < 1
    assert np.bincount(labels[train], minlength=10).min() >= 1


def test_split_follows_the_seed():
    labels = np.tile(np.arange(10, dtype=np.uint8), 100)
    first, again, other = (dataset.split_indices(labels, 0.1, np.random.default_rng(seed))[1] for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("fraction", "gate", "seed"), [(0.0, 0.0, 0), (0.1, 0.1, 0), (0.25, 0.0, 7), (0.0, 0.5, 1), (0.1, 0.03, 2)]
)
def test_data_split_anew_equal_data_loaded_anew(data, fraction, gate, seed, monkeypatch):
    monkeypatch.undo()  # the cache of this machine
    config = DataConfig(validation_fraction=fraction, gate_fraction=gate)
    loaded = dataset.load(config, seed)
    again = data.resplit(config, seed)
    assert [split.digest for split in splits(again)] == [split.digest for split in splits(loaded)]
    assert [split.name for split in splits(again)] == [split.name for split in splits(loaded)]
    assert np.array_equal(again.order, loaded.order)
    assert [split.digest for split in splits(data.without_holdout().resplit(config, seed))] == [
        split.digest for split in splits(loaded)
    ]


def test_without_holdout_all_images_are_for_training(data):
    whole = data.without_holdout()
    assert (len(whole.train.images), len(whole.validation.images)) == (60_000, 0)
    assert whole.test is data.test
    assert whole.validation.images.shape == whole.gate.images.shape == (0, 28, 28)


def splits(data: FashionMNIST) -> list[Split]:
    return [data.train, data.validation, data.gate, data.test]


# the images of the gate


@pytest.mark.parametrize("counts", [[600] * 10, [2, 3, 5, 8, 13, 21, 34, 55, 89, 144]], ids=["even", "uneven"])
def test_smaller_gate_splits_are_parts_of_larger_ones_and_have_all_classes(counts):
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(10, dtype=np.uint8), counts))
    larger = np.arange(len(labels))
    for fraction in (0.5, 0.33, 0.2, 0.1, 0.05, 0.01):
        chosen = dataset.gate_indices(labels, fraction)
        assert len(chosen) == round(fraction * len(labels))
        assert np.isin(chosen, larger).all()
        assert np.abs(np.bincount(labels[chosen], minlength=10) - np.array(counts) * fraction).max() <= 1
        larger = chosen
    assert len(dataset.gate_indices(labels, 0)) == 0


def test_all_experiments_keep_the_same_images_back(data):
    """No field but the fraction changes the images of the gate, and validation keeps its share of all images."""
    other = data.resplit(DataConfig(validation_fraction=0.25, split_seed=9), seed=5)
    assert other.gate.digest == data.gate.digest
    assert [len(split.images) for split in splits(other)] == [39_000, 15_000, 6_000, 10_000]
    assert other.order is not None
    assert np.array_equal(np.sort(other.order), np.arange(60_000)), "no image is in two splits"


def test_without_a_gate_split_the_split_is_that_of_earlier_releases(data):
    """Models of those releases can only be compared if their split is made again, as this digest shows."""
    earlier = data.resplit(DataConfig(gate_fraction=0), seed=0)
    assert [len(split.images) for split in splits(earlier)] == [54_000, 6_000, 0, 10_000]
    assert earlier.train.digest == "af10b2c681294a593a779f76219c9b59"


def test_digest_follows_the_content():
    images, labels = np.zeros((2, 28, 28), np.uint8), np.array([1, 2], np.uint8)
    changed = images.copy()
    changed[1, 27, 27] = 1
    splits = [dataset.Split("train", i, n) for i, n in ((images, labels), (images.copy(), labels), (changed, labels))]
    splits.append(dataset.Split("train", images, labels[::-1]))
    first, same, pixel, order = (split.digest for split in splits)
    assert first == same
    assert len({first, pixel, order}) == 3
