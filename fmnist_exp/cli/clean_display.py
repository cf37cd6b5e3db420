"""The output of clean."""

from __future__ import annotations

from rich import box
from rich.table import Table

from fmnist_exp.cli.display import console
from fmnist_exp.tuning.cleaning import MEANINGS, Found

__all__ = ["console", "show"]


def show(found: Found) -> None:
    """Print how much of each kind nobody needs, and what is left alone."""
    for notice in found.notices:
        console.print(notice)
    if not found.items:
        console.print("there is nothing to delete")
        return
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("nobody needs", no_wrap=True)
    for name in ("number", "MiB"):
        table.add_column(name, justify="right", no_wrap=True)
    sums = [(meaning, *found.total(kind)) for kind, meaning in MEANINGS.items()]
    for meaning, count, size in [*sums, ("in total", sum(row[1] for row in sums), sum(row[2] for row in sums))]:
        table.add_row(meaning, f"{count:,}", f"{size / 2**20:,.1f}")
    console.print(table)
    for item in found.items:
        if item.kind == "weights":
            console.print(f"{item.name}: weights of {item.count} trials, {item.bytes / 2**20:,.1f} MiB")
