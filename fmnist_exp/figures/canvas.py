"""Empty figures, colours, and writing a figure as a PNG file."""

import io
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

Images = NDArray[np.uint8]  # (N, 28, 28)

TRAIN, VALIDATION, RIGHT, WRONG = "#8ab6d6", "#1f5f8b", "#2e7d32", "#c62828"
DPI = 100


def blank(
    width: float, height: float, left: float = 0.7, right: float = 0.2, bottom: float = 0.5
) -> tuple[Figure, Axes]:
    """Return an empty figure with one pair of axes, and its axes; all sizes are in inches.

    The margins are arguments because matplotlib's layout engines draw every figure twice to find them.
    """
    figure, top = Figure(figsize=(width, height), dpi=DPI), 0.4
    sides = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    return figure, figure.add_axes(sides)


def save(folder: Path, name: str, figure: Figure) -> None:
    """Write `figure` as the PNG file folder/name."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(png(figure))


def png(figure: Figure) -> bytes:
    """Return the figure as the bytes of a PNG file."""
    file = io.BytesIO()
    with rc_context({"text.hinting": "none"}):  # letters take most of the time; this saves a fifth
        figure.savefig(file, format="png", pil_kwargs={"compress_level": 1})  # a tenth larger, twice as fast
    return file.getvalue()
