"""The log of the measurement: what each trial cost, and the table that it makes."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

BLOCK = 100  # consecutive trials that are averaged
WANTED = 1.2  # times the cost of the first block, at most, for the last one
LOG, SIZES = "trials.csv", "sizes.csv"
STUDY = "scale"


@dataclass(frozen=True)
class Cost:
    """The cost of one trial, as one line of the log."""

    number: int
    session: int  # process that ran it
    seconds: float  # since the trial before it ended
    cpu_seconds: float  # of this process
    work_seconds: float  # CPU time of the fixed work, which is not contained in the others
    resident: int  # bytes of memory of this process

    @classmethod
    def parse(cls, row: Sequence[str]) -> Self:
        """Return the cost that a line of the log holds."""
        number, session, seconds, cpu_seconds, work_seconds, resident = row
        spent = float(seconds), float(cpu_seconds), float(work_seconds)
        return cls(int(number), int(session), *spent, int(resident))


def read(file: Path) -> list[Cost]:
    """Return the costs of a log; none if the file does not exist."""
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as opened:
        return [Cost.parse(row) for row in csv.reader(opened) if len(row) == len(fields(Cost))]


def show(folder: Path) -> int:
    """Print the costs of blocks of trials, and return 0 if the last block cost at most WANTED times the first one."""
    costs = sorted(read(folder / LOG), key=lambda cost: cost.number)
    if len(costs) < 2 * BLOCK:
        print(f"{len(costs)} trials are too few for a table")
        return 1
    print(f"{'trials from':>11}{'ms each':>9}{'CPU ms':>8}{'fixed work, ms':>16}{'MiB':>7}")
    starts = [*range(0, len(costs) - BLOCK, max(BLOCK, len(costs) // 10)), len(costs) - BLOCK]
    for block in (costs[start : start + BLOCK] for start in starts):
        times = (1000 * statistics.median(column) for column in zip(*map(_times, block), strict=True))
        whole, cpu, work = times
        memory = statistics.median(cost.resident for cost in block) / 2**20
        print(f"{block[0].number:>11}{whole:>9.1f}{cpu:>8.1f}{work:>16.2f}{memory:>7.0f}")
    ratios = [_ratio(costs, column) for column in range(2)]
    print(f"last {BLOCK} of {len(costs)}: {ratios[0]:.2f} times the first {BLOCK}, in CPU time {ratios[1]:.2f} times")
    for number, name, size in _sizes(folder / SIZES):
        print(f"{number:>11} trials: {name} {size / 2**20:,.1f} MiB")
    return int(min(ratios) > WANTED)


def _times(cost: Cost) -> tuple[float, float, float]:
    return cost.seconds, cost.cpu_seconds, cost.work_seconds


def _ratio(costs: Sequence[Cost], column: int) -> float:
    """Return how many times the first block the last one costs, each in units of the fixed work at that time."""
    first, last = (
        statistics.median(_times(cost)[column] for cost in block) / statistics.median(_times(cost)[2] for cost in block)
        for block in (costs[:BLOCK], costs[-BLOCK:])
    )
    return last / first


def _sizes(file: Path) -> list[tuple[int, str, int]]:
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as opened:
        return [(int(number), name, int(size)) for number, name, size in csv.reader(opened)]
