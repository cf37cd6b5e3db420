"""Blank figures, colours, and how a figure becomes a PNG file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


TRAIN, VALIDATION, RIGHT, WRONG = "#8ab6d6", "#1f5f8b", "#2e7d32", "#c62828"
DPI = 100


def blank(
    width: float, height: float, left: float = 0.7, right: float = 0.2, bottom: float = 0.5
) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; all sizes in inches.

    The margins are given, as matplotlib's layout engines draw every figure twice to find them.
    """
    figure = Figure(figsize=(width, height), dpi=DPI)
    top = 0.4
    sides = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    return figure, figure.add_axes(sides)


def save(folder: Path, name: str, figure: Figure) -> None:
    """Write `figure` as folder/name, a PNG."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(png(figure))


def png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    held = io.BytesIO()
    with rc_context({"text.hinting": "none"}):  # most of the time goes into letters; so a fifth less
        figure.savefig(held, format="png", pil_kwargs={"compress_level": 1})  # a tenth larger, twice as fast
    return held.getvalue()
