"""An open search, as the code of one session sees it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from optuna import Study

from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.tracking.run import Run
from fmnist_exp.tuning.space import SearchSpace


@dataclass
class Search:
    """An open search. The plan may let the trials end later, at the cost of the final fit; all else stays as it is."""

    space: SearchSpace
    data: FashionMNIST
    study: Study
    parent: Run
    deadline: float  # of the trials, in seconds of `clock`
    clock: Callable[[], float] = time.monotonic
    end: float = math.inf  # of the time limit; between the two the winner is trained to the end

    def left(self) -> float:
        """Return the seconds until the trials must end; negative afterwards."""
        return self.deadline - self.clock()

    def is_late(self) -> bool:
        """Return whether the trials must end."""
        return self.left() < 0
