"""The epochs and checkpoints that a fit reports while it runs, and the callbacks that receive them, without Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fmnist_exp.training.state import State

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Epoch:
    """The metrics of one finished epoch. `number` counts from 1."""

    number: int
    metrics: Mapping[str, float]  # train_loss, train_accuracy, val_loss, val_accuracy, learning_rate, epoch_seconds
    images: int = 0  # that the epoch was validated on; 0 if that is unknown


@dataclass(frozen=True)
class Checkpoint:
    """The state of a fit between two epochs, for callbacks that save it."""

    model: keras.Model  # holds the weights that were validated in this epoch
    is_best: bool  # True if this epoch is the best one so far
    state: Callable[[], State]  # copies everything that is needed to resume from here


class FitCallback:
    """Base class of callbacks that watch a fit. Every method does nothing; override those of interest."""

    def on_step(self, epoch: int, step: int, steps: int) -> None:
        """Handle the end of optimizer step `step` of the `steps` of epoch `epoch`; both count from 1."""

    def on_epoch(self, epoch: Epoch) -> bool:
        """Handle the end of an epoch. Return True to stop the fit after it."""
        return False

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Handle a checkpoint: every decision that follows from the epoch has been made, so the fit can be resumed."""
