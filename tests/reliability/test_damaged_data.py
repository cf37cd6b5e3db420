"""Damaged files of images under real commands: one sentence, exit code 2, and nothing is written."""

import csv
import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from fmnist_exp.data import formats

LABELS = "t10k-labels-idx1-ubyte"
IDX = struct.pack(">HBBI", 0, 8, 1, 10_000) + bytes(10_000)
Rows = list[list[str]]


def idx(content: bytes) -> Callable[[Path, Path], None]:
    """The four files, of which the first one that is read has this content."""

    def write(target: Path, source: Path) -> None:
        for file in formats.IDX_FILES.values():
            (target / f"{file.name}.gz").write_bytes(content if file.name == LABELS else b"")

    return write


def table(change: Callable[[Rows], object]) -> Callable[[Path, Path], None]:
    """Both tables, the first of them with a change."""

    def write(target: Path, source: Path) -> None:
        for name in formats.CSV_FILES.values():
            (target / name).write_bytes((source / name).read_bytes())
        file = target / formats.CSV_FILES["train"]
        with file.open(newline="") as opened:
            rows = list(csv.reader(opened))
        change(rows)
        with file.open("w", newline="") as changed:
            csv.writer(changed).writerows(rows)

    return write


def cell(column: int, value: str) -> Callable[[Path, Path], None]:
    return table(lambda rows: rows[5].__setitem__(column, value))


FAULTS = {
    "gz": ("mlp", idx(gzip.compress(IDX)[:-9]), "damaged gzip"),
    "magic": ("cnn", idx(b"\1" + IDX[1:]), "not an IDX file: starts with 01000801"),
    "dimensions": ("baseline", idx(IDX[:4] + struct.pack(">I", 9_999) + IDX[8:]), "dimensions (9999,)"),
    "length": ("tune", idx(IDX[:-1]), "only 10,007 bytes, expected 10,008"),
    "784 columns": ("main", table(lambda rows: [row.pop() for row in rows]), "the header has 784 columns"),
    "NaN": ("mlp", cell(300, "NaN"), "row 5 after the header, column pixel300: is empty"),
    "256": ("tune", cell(300, "256"), "column pixel300: is '256', expected an integer from 0 to 255"),
    "label 10": ("cnn", cell(0, "10"), "column label: is '10', expected an integer from 0 to 9"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_images(commands, folder, tmp_path, new_database, fault):
    command, write, words = FAULTS[fault]
    images = tmp_path / "images"
    images.mkdir()
    write(images, Path(folder))
    uri = new_database(tmp_path, str(tmp_path / "mlruns"))
    done = commands.run(command, "--data.source", str(images), folder=tmp_path, MLFLOW_TRACKING_URI=uri)
    assert (done.code, words in done.error) == (2, True), done.printed
    assert str(images) in done.error
    assert mlflow.MlflowClient(uri).search_runs(["0"]) == []
    assert not (tmp_path / "studies.db").exists()
