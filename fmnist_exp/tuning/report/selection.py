"""Choose the trials that the figures of a long study show. Figures with all of them would be blots and open slowly."""

import heapq
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

SHOWN = 500  # trials in a figure, at most
MARKED = 100  # trials up to which a figure draws every point of a curve and every number
RULE = "the best quarter of these, those with a new highest accuracy, and trials at even distances in between"


def positions(accuracies: Sequence[float], most: int = SHOWN) -> list[int]:
    """Return the positions of at most `most` trials in ascending order: all of them, or those of RULE."""
    count = len(accuracies)
    if count <= most:
        return list(range(count))
    highest = [-np.inf, *accumulate(accuracies, max)]
    records = [position for position in range(count) if accuracies[position] > highest[position]]
    best = heapq.nlargest(most // 4, range(count), key=accuracies.__getitem__)
    chosen = {*best, *even(records, most // 4)}
    return sorted(chosen | set(even(range(count), most - len(chosen))))


def even(rows: Sequence[int], most: int) -> list[int]:
    """Return at most `most` of these rows, at even distances, the first and the last one included."""
    if len(rows) <= most:
        return list(rows)
    return [rows[place] for place in np.linspace(0, len(rows) - 1, most).round().astype(int).tolist()]
