"""The raw results of the benchmark: a file of JSON lines, to which every finished search appends one.

Those of the tasks to report on are in docs/lcbench/results.jsonl.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import records

SHARES = (0.10, 0.30, 0.63, 1.00)  # of the budget, after which the regret is reported
POINTS = 48  # of a course that is kept


@dataclass(frozen=True)
class Result:
    """One search of a contestant: `best` has each new best accuracy, after its number of epochs."""

    contestant: str
    version: str  # of its code
    task: str
    seed: int
    budget: int  # epochs
    trials: int
    seconds: float  # of computing
    worst: float  # the ends of the task's scale, accuracies
    top: float
    best: list[tuple[int, float]]

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """The values that identify this search among all others."""
        return self.contestant, self.version, self.task, self.seed, self.budget

    def regret(self, epochs: float) -> float:
        """Return the regret after this many epochs, in percent of the task's scale.

        It is negative if the search found a better accuracy than the sample that defines the scale has.
        """
        reached = [accuracy for when, accuracy in self.best if when <= epochs]
        return 100 * (self.top - (reached[-1] if reached else self.worst)) / (self.top - self.worst)


def thinned(best: Sequence[tuple[int, float]], budget: int) -> list[tuple[int, float]]:
    """Return a search's course at about 50 points of the budget, so that thousands of searches make a small file.

    The points lie evenly on a logarithmic scale, and SHARES are among them. A better accuracy counts from the next
    point on.
    """
    points = {int(point) for point in np.geomspace(1, budget, POINTS)} | {int(share * budget) for share in SHARES}
    course: list[tuple[int, float]] = []
    for point in sorted(points):
        reached = max((round(accuracy, 6) for when, accuracy in best if when <= point), default=0.0)
        if reached > (course[-1][1] if course else 0.0):
            course.append((point, reached))
    return course


def read(file: Path) -> dict[tuple[str, str, str, int, int], Result]:
    """Return the results in a file by their keys."""
    found = {}
    for fields in records.read(file):
        result = Result(**{**fields, "best": [(when, accuracy) for when, accuracy in fields["best"]]})
        found[result.key] = result
    return found


def append(file: Path, result: Result) -> None:
    """Add a result to a file."""
    records.append(file, asdict(result))


def table(results: Iterable[Result], epochs: float) -> dict[str, dict[str, list[float]]]:
    """Return the regrets after this many epochs: by contestant, by task, one for each seed."""
    regrets: dict[str, dict[str, list[float]]] = {}
    for result in results:
        regrets.setdefault(result.contestant, {}).setdefault(result.task, []).append(result.regret(epochs))
    return regrets


def by_task(regrets: dict[str, dict[str, list[float]]], tasks: list[str]) -> NDArray[np.float64]:
    """Return the mean regret over the seeds; shape (contestants, tasks)."""
    return np.array([[float(np.mean(own[task])) for task in tasks] for own in regrets.values()])
