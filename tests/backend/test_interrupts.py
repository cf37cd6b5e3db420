"""Ctrl-C at bad moments: dropped by Python in a destructor, twice in a row, or while a run is being closed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

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


def test_a_dropped_interrupt_that_was_handled_is_not_raised_again(heeded, monkeypatch):
    monkeypatch.setattr(interrupts, "DROPPED_SECONDS", 0.05)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    interrupts.repeat()
    interrupts.clear()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    time.sleep(0.2)  # another signal would be raised here


def test_a_command_in_the_background_goes_on_ignoring_ctrl_c(heeded):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.install()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_the_second_signal_lets_the_work_be_closed(heeded):
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)  # remembered
    interrupts.clear()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def pressed_while_held() -> list[str]:
    done = ["pressed"]
    try:
        with interrupts.held():
            signal.raise_signal(signal.SIGINT)
            done.append("ended")
    except KeyboardInterrupt:
        return done
    raise AssertionError("not interrupted")


def test_a_block_that_is_held_ends_before_it_is_interrupted(heeded, monkeypatch):
    assert pressed_while_held() == ["pressed", "ended"]
    interrupts.clear()
    monkeypatch.setattr(interrupts, "GRACE_SECONDS", 0.0)  # the block takes longer
    assert pressed_while_held() == ["pressed"]


def test_an_error_in_a_block_that_is_held_comes_first(heeded):
    with pytest.raises(ZeroDivisionError), interrupts.held():
        signal.raise_signal(signal.SIGINT) or 1 / 0
    assert interrupts.pending()


CODE = """
import os, signal, sys, time
from fmnist_exp.backend import interrupts
from fmnist_exp.tracking import failures
interrupts.install()
failures.install()
class Dying:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass
try:
    Dying()
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
interrupts.leave_at_once(7)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(60)
"""


def test_an_interrupt_that_a_destructor_dropped_comes_again_and_the_last_one_ends_the_process():
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=environment, timeout=50)
    assert (done.returncode, done.stdout, done.stderr) == (7, "interrupted\n", "")
