"""IDX and CSV files and their folders are read exactly, and each kind of damage is refused with its place."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fmnist_exp.config.schema import DataConfig
from fmnist_exp.data import dataset, formats
from fmnist_exp.data.formats import SourceError
from fmnist_exp.errors import RequestError

pytestmark = pytest.mark.usefixtures("own_cache")

SHAPE = (3, 28, 28)
IDX = struct.pack(">HBB3I", 0, 8, 3, *SHAPE) + bytes(range(256)) * 9 + bytes(48)
SHA256 = hashlib.sha256(IDX).hexdigest()


def csv_rows() -> list[list[str]]:
    return [list(formats.CSV_HEADER), *([str(i % 10), *["7"] * 784] for i in range(20))]


def write_csv(folder: Path, train: list[list[str]], test: list[list[str]] | None = None) -> None:
    for name, rows in zip(formats.CSV_FILES.values(), (train, test or csv_rows()), strict=True):
        (folder / name).write_text("\n".join(",".join(row) for row in rows) + "\n")


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


def test_changed_folder_is_read_again(tmp_path):
    write_csv(tmp_path, csv_rows())
    config = DataConfig(source=str(tmp_path))
    assert dataset.load(config, seed=0).test.images.max() == 7
    write_csv(tmp_path, csv_rows(), test=[*csv_rows(), ["3", *["200"] * 784]])
    assert dataset.load(config, seed=0).test.images.max() == 200


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
