"""Ctrl-C that Python drops, since it came within a destructor, ends the fit all the same."""

import os
import signal
from collections.abc import Iterator

import pytest
from support.searches import configure

from fmnist_exp import models
from fmnist_exp.backend import interrupts, seeds
from fmnist_exp.training import fit as fitting
from fmnist_exp.training.events import FitCallback


@pytest.fixture
def heeded() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupts.install()
    yield
    interrupts.clear()
    for number, handler in handlers.items():
        signal.signal(number, handler)


class Dying:
    """Presses Ctrl-C while it is taken apart."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):  # the handler runs between two of Python's instructions
            pass


class Dropping(FitCallback):
    def __init__(self) -> None:
        self.steps = 0

    def on_step(self, epoch: int, step: int, steps: int) -> None:
        self.steps += 1
        if self.steps == 3:
            Dying()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_fit_ends_at_its_next_step(heeded, small):
    config, dropping = configure(), Dropping()
    seeds.prepare(config.seed, config.training.precision)
    with pytest.raises(KeyboardInterrupt):
        fitting.fit(models.build(config.model), config, small, [dropping])
    assert dropping.steps == 3
    interrupts.clear()
    interrupts.check()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_interrupt_at_once_and_are_remembered(heeded, number):
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    with pytest.raises(KeyboardInterrupt):
        interrupts.check()


def test_a_command_in_the_background_goes_on_ignoring_ctrl_c(heeded):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.install()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
