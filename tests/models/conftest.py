"""Every test of this folder builds its networks in float32 with the same seeds."""

import pytest

from fmnist_exp.backend import seeds


@pytest.fixture(autouse=True)
def prepared():
    seeds.prepare(0, "float32")
