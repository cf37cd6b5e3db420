"""Images from a CSV file, checked cell by cell."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fmnist_exp.data_sources import SourceError

if TYPE_CHECKING:
    import pandas as pd

Bytes = NDArray[np.uint8]

CSV_HEADER = "label", *(f"pixel{i}" for i in range(1, 785))


def read_csv(path: Path) -> tuple[Bytes, Bytes]:
    """Images and labels of a CSV file: a header, then label and 784 pixels a row. Raises SourceError."""
    import pandas as pd

    parts = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = tuple(next(csv.reader(file), ()))
            if header != CSV_HEADER:
                raise SourceError(f"{path}: {_header_fault(header)}")
            # one column too many, so that a row of 786 shows; in chunks, since 64-bit integers take 8 times the space
            options = {"header": None, "names": [*CSV_HEADER, "extra"], "index_col": False, "low_memory": False}
            parts = [_checked(path, chunk) for chunk in pd.read_csv(file, chunksize=5_000, **options)]
    except ValueError as error:  # pandas' ParserError among them
        raise SourceError(f"{path}: {' '.join(str(error).split())}") from error
    if not sum(map(len, parts)):
        raise SourceError(f"{path}: no rows after the header")
    rows = np.concatenate(parts)
    return rows[:, 1:].reshape(-1, 28, 28), rows[:, 0]


def _header_fault(header: tuple[str, ...]) -> str:
    if len(header) != len(CSV_HEADER):
        return f"the header has {len(header)} columns, expected 785: label, pixel1, …, pixel784"
    column = next(i for i, pair in enumerate(zip(header, CSV_HEADER, strict=True)) if pair[0] != pair[1])
    return f"the header's column {column + 1} is {header[column]!r}, expected {CSV_HEADER[column]!r}"


def _checked(path: Path, chunk: "pd.DataFrame") -> Bytes:
    """The rows as bytes (n, 785). Raises SourceError naming the first cell that is no such integer."""
    import pandas as pd

    if chunk["extra"].notna().any():
        row = chunk.index[chunk["extra"].notna()][0]
        raise SourceError(f"{path}: row {row + 1} after the header has more than 785 values")
    cells = chunk[list(CSV_HEADER)]
    numbers = cells.apply(pd.to_numeric, errors="coerce").to_numpy(float)
    highest = np.where(np.array(CSV_HEADER) == "label", 9, 255)
    right = (numbers >= 0) & (numbers <= highest) & (np.floor(numbers) == numbers)
    wrong = ~right | cells.dtypes.map(pd.api.types.is_bool_dtype).to_numpy()
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        found = "is empty" if pd.isna(cells.iat[row, column]) else f"is {str(cells.iat[row, column])!r}"
        limit = f"an integer from 0 to {highest[column]}"
        where = f"row {chunk.index[row] + 1} after the header, column {CSV_HEADER[column]}"
        raise SourceError(f"{path}: {where}: {found}, expected {limit}")
    checked: Bytes = numbers.astype(np.uint8)
    return checked
