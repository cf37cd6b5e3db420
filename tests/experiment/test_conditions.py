"""The conditions of a process name everything that a fit on another machine may differ in."""

import sys

import pytest

from fmnist_exp.backend import hardware
from fmnist_exp.backend.hardware import Gpu
from fmnist_exp.experiment import conditions
from fmnist_exp.tracking.names import Tag


@pytest.mark.parametrize("gpu", [None, Gpu("NVIDIA H100 80GB HBM3", (9, 0))])
def test_the_processor_comes_with_its_gpu(monkeypatch, gpu):
    monkeypatch.setattr(hardware, "gpu", lambda: gpu)
    also = ", with the GPU NVIDIA H100 80GB HBM3" if gpu else ""
    assert conditions.current()[Tag.PROCESSOR] == hardware.processor().description + also


def test_the_backend_comes_with_the_version_of_python():
    assert conditions.current()[Tag.BACKEND].endswith(f", Python {sys.version_info.major}.{sys.version_info.minor}")


def test_a_difference_names_both_values():
    here = conditions.current()
    there = here | {Tag.PROCESSOR: "another"}
    assert conditions.differences(here, here) == []
    assert conditions.differences(there, here) == [f"its processor was another, not {here[Tag.PROCESSOR]}"]
