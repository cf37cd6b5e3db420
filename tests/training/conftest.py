"""A short fit for the tests that compare with it or look at it."""

from typing import Any

import pytest
from support.experiments import Collector, configure, fit

from fmnist_exp.training.fit import Fit


@pytest.fixture(scope="session")
def plain(small) -> tuple[Any, Fit, Collector]:
    """Fit TINY once for all tests that do not change the model; its steps and epochs are in the collector."""
    collector = Collector()
    return *fit(configure(), small, [collector]), collector
