"""Reading, verifying and splitting: real images where the content matters, small files where the damage does."""

import functools
import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from fmnist_exp.config.schema import DataConfig
from fmnist_exp.data import dataset, formats, sources
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.data.formats import SourceError
from fmnist_exp.data.sources import Source
from fmnist_exp.errors import RequestError, WorkError

SHAPE = (3, 28, 28)
IDX = struct.pack(">HBB3I", 0, 8, 3, *SHAPE) + bytes(range(256)) * 9 + bytes(48)
SHA256 = hashlib.sha256(IDX).hexdigest()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FMNIST_EXP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def csv_rows() -> list[list[str]]:
    return [list(formats.CSV_HEADER), *([str(i % 10), *["7"] * 784] for i in range(20))]


def write_csv(folder: Path, train: list[list[str]], test: list[list[str]] | None = None) -> None:
    for name, rows in zip(formats.CSV_FILES.values(), (train, test or csv_rows()), strict=True):
        (folder / name).write_text("\n".join(",".join(row) for row in rows) + "\n")


# the whole of it


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


def test_changed_folder_is_read_again(tmp_path):
    write_csv(tmp_path, csv_rows())
    config = DataConfig(source=str(tmp_path))
    assert dataset.load(config, seed=0).test.images.max() == 7
    write_csv(tmp_path, csv_rows(), test=[*csv_rows(), ["3", *["200"] * 784]])
    assert dataset.load(config, seed=0).test.images.max() == 200


def test_csv_of_real_images(real_folder, tmp_path):
    real = formats.read_files(formats.find_files(real_folder), "")
    for name, images, labels in zip(
        formats.CSV_FILES.values(),
        (real.train_images, real.test_images),
        (real.train_labels, real.test_labels),
        strict=True,
    ):
        table = pd.DataFrame(
            np.column_stack([labels[:200], images[:200].reshape(200, 784)]), columns=formats.CSV_HEADER
        )
        table.to_csv(tmp_path / name, index=False)
    parsed = formats.read_files(formats.find_files(tmp_path), "")
    assert np.array_equal(parsed.train_images, real.train_images[:200])
    assert np.array_equal(parsed.train_labels, real.train_labels[:200])
    assert np.array_equal(parsed.test_images, real.test_images[:200])
    assert np.array_equal(parsed.test_labels, real.test_labels[:200])


# IDX


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_idx_is_read(tmp_path, pack):
    path = tmp_path / "images"  # the content decides whether it is unzipped, not the name
    path.write_bytes(pack(IDX))
    assert formats.read_idx(path, SHAPE, SHA256).tobytes() == IDX[16:]


FLIPPED = IDX[:100] + bytes([IDX[100] ^ 1]) + IDX[101:]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an IDX file: starts with nothing"),
        (b"<htm" + IDX[4:], "not an IDX file: starts with 3c68746d"),
        (IDX[:2] + b"\x0d" + IDX[3:], "values of type 0x0d, expected 0x08"),
        (IDX[:3] + b"\x01" + IDX[4:], "1 dimensions, expected 3"),
        (IDX[:10], "ends within its header of 16 bytes"),
        (IDX[:7] + b"\x04" + IDX[8:], r"dimensions \(4, 28, 28\), expected \(3, 28, 28\)"),
        (IDX[:-1], "only 2,367 bytes, expected 2,368"),
        (IDX + b"\0", "more bytes, expected 2,368"),
        (FLIPPED, f"expected {SHA256}"),
        (gzip.compress(IDX)[:-9], "damaged gzip"),
        (gzip.compress(IDX)[:-6] + b"\0" * 6, "damaged gzip"),
        (gzip.compress(FLIPPED), f"expected {SHA256}"),
        (gzip.compress(IDX) + gzip.compress(b"more"), "more bytes"),
    ],
)
def test_damaged_idx_is_refused(tmp_path, content, message):
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message) as raised:
        formats.read_idx(path, SHAPE, SHA256)
    assert str(path) in str(raised.value)


def test_every_prefix_of_an_idx_file_is_refused(tmp_path):
    path = tmp_path / "images"
    for end in range(len(IDX)):
        path.write_bytes(IDX[:end])
        with pytest.raises(SourceError):
            formats.read_idx(path, SHAPE, SHA256)


# CSV


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (3, 0, "10", "row 3 after the header, column label: is '10', expected an integer from 0 to 9"),
        (1, 0, "-1", "row 1 after the header, column label: is '-1'"),
        (4, 17, "256", "row 4 after the header, column pixel17: is '256', expected an integer from 0 to 255"),
        (4, 17, "1.5", "row 4 after the header, column pixel17: is '1.5'"),
        (20, 784, "x", "row 20 after the header, column pixel784: is 'x'"),
        (5, 2, "NaN", "row 5 after the header, column pixel2: is empty"),
        (5, 2, "", "row 5 after the header, column pixel2: is empty"),
        (5, 2, "inf", "row 5 after the header, column pixel2: is 'inf'"),
        (5, 2, "99999999999999999999", "row 5 after the header, column pixel2"),
        (5, 784, None, "row 5 after the header, column pixel784: is empty"),
        (1, 784, None, "row 1 after the header, column pixel784: is empty"),
        (6, 784, "1,2", "row 6 after the header has more than 785 values"),
        (7, 784, "1,2,3", "fields in line"),
        (0, 5, "pixel6", "header's column 6 is 'pixel6', expected 'pixel5'"),
        (0, 784, None, "header has 784 columns, expected 785"),
    ],
)
def test_damaged_csv_names_row_and_column(tmp_path, row, column, value, message):
    rows = csv_rows()
    rows[row][column : column + 1] = [] if value is None else [value]
    write_csv(tmp_path, rows)
    with pytest.raises(RequestError, match=message) as raised:
        dataset.load(DataConfig(source=str(tmp_path)), seed=0)
    assert str(tmp_path / formats.CSV_FILES["train"]) in str(raised.value)


def test_a_column_of_words_that_pandas_takes_for_truth_values(tmp_path):
    write_csv(tmp_path, [row if i == 0 else [*row[:9], "True", *row[10:]] for i, row in enumerate(csv_rows())])
    with pytest.raises(RequestError, match="row 1 after the header, column pixel9: is 'True'"):
        dataset.load(DataConfig(source=str(tmp_path)), seed=0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "header has 0 columns"),
        (csv_rows()[:1], "no rows after the header"),
        (csv_rows()[1:], "header's column 1 is '0', expected 'label'"),
        (csv_rows()[:19], "needs two rows of each class; too few of Bag, Ankle boot"),
    ],
)
def test_csv_without_enough_in_it(tmp_path, rows, message):
    write_csv(tmp_path, csv_rows())
    (tmp_path / formats.CSV_FILES["train"]).write_text("\n".join(",".join(row) for row in rows))
    with pytest.raises(RequestError, match=message):
        dataset.load(DataConfig(source=str(tmp_path)), seed=0)


def test_csv_rows_are_counted_across_chunks(tmp_path):
    rows = [csv_rows()[0], *csv_rows()[1:] * 255]
    rows[5_050] = [*rows[5_050][:3], "300", *rows[5_050][4:]]
    write_csv(tmp_path, rows)
    with pytest.raises(RequestError, match="row 5050 after the header, column pixel3: is '300'"):
        dataset.load(DataConfig(source=str(tmp_path)), seed=0)


# folders


def test_named_folder_that_is_missing(tmp_path):
    with pytest.raises(RequestError, match=r"nowhere is not a folder; with data\.source empty"):
        dataset.load(DataConfig(source=str(tmp_path / "nowhere")), seed=0)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"lacks t10k-labels.*train-images-idx3-ubyte\[\.gz\] \(or fashion-mnist_train"),
        (["notes.txt"], "lacks t10k-labels"),
        ([formats.CSV_FILES["train"]], "lacks fashion-mnist_test.csv"),
        (
            ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"],
            r"lacks t10k-images[^,]*;",
        ),
    ],
)
def test_named_folder_that_lacks_files(tmp_path, names, message):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(RequestError, match=message):
        dataset.load(DataConfig(source=str(tmp_path)), seed=0)


def test_a_damaged_file_in_a_named_folder(real_folder, tmp_path):
    for path in real_folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    damaged = tmp_path / "train-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(damaged.read_bytes()))
    content[500] ^= 1
    damaged.unlink()
    damaged.write_bytes(gzip.compress(content))
    with pytest.raises(RequestError, match=r"train-labels-idx1-ubyte\.gz: SHA-256 .* expected bad3541b"):
        dataset.load(DataConfig(source=str(tmp_path)), seed=0)


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
