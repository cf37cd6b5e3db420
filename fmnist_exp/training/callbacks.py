"""The Keras callbacks of a fit: they record epochs, average weights, stop early, and offer checkpoints.

A callback that remembers something between two epochs returns it from `state` and takes it back in `restore`.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from fmnist_exp.backend import interrupts
from fmnist_exp.config.schema import TrainingConfig
from fmnist_exp.errors import WorkError
from fmnist_exp.training.events import Checkpoint, Epoch, FitCallback
from fmnist_exp.training.state import Array, Memory, State

Logs = Mapping[str, float] | None
CROSS_ENTROPY = "cross_entropy"  # name of the metric, where the loss that is minimised is more than the cross-entropy


class EarlyStopping(keras.callbacks.EarlyStopping):
    """Keras' early stopping, which keeps the weights of the best epoch."""

    def state(self) -> Memory:
        """Return the best epoch with its weights, and the number of epochs since."""
        numbers = {"wait": self.wait, "best": self.best, "best_epoch": self.best_epoch}
        return Memory(numbers, self.best_weights or ())

    def restore(self, memory: Memory) -> None:
        """Continue from what `state` returned."""
        self.wait, self.best = memory.numbers["wait"], memory.numbers["best"]
        self.best_epoch, self.best_weights = memory.numbers["best_epoch"], list(memory.arrays) or None


class ReduceLROnPlateau(keras.callbacks.ReduceLROnPlateau):
    """Keras' reduction of the learning rate when the monitored metric no longer improves."""

    def state(self) -> Memory:
        """Return the best value and the number of epochs since."""
        return Memory({"wait": self.wait, "best": self.best, "cooldown_counter": self.cooldown_counter})

    def restore(self, memory: Memory) -> None:
        """Continue from what `state` returned."""
        self.wait, self.best = memory.numbers["wait"], memory.numbers["best"]
        self.cooldown_counter = memory.numbers["cooldown_counter"]


class AveragedWeights(keras.callbacks.Callback):
    """Put the optimizer's averages into the model for validation, until the first step of the next epoch.

    Callbacks that act at an epoch's end, such as early stopping, find the averages in the model. Only trainable weights
    are averaged: the moving statistics of batch normalization stay as the steps leave them. Keras' own SwapEMAWeights
    exchanges weights and averages by adding and subtracting, which changes the last bits of both.
    """

    def __init__(self) -> None:
        super().__init__()
        self._trained: list[Array] = []  # the weights of the last step, while the averages replace them

    def state(self) -> Memory:
        """Return the trained weights, which the model itself does not hold between two epochs."""
        return Memory(arrays=self._trained)

    def restore(self, memory: Memory) -> None:
        """Continue from what `state` returned. The model must already hold the averages."""
        self._trained = list(memory.arrays)

    def on_test_begin(self, logs: Logs = None) -> None:  # noqa: D102
        weights = self.model.trainable_variables
        self._trained = _copies(weights)
        self.model.optimizer.finalize_variable_values(weights)
        # copies: on JAX a weight would share its buffer with the optimizer's average, and validation gives it up
        _assign(weights, _copies(weights))

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:  # noqa: D102
        if self._trained:
            _assign(self.model.trainable_variables, self._trained)
        self._trained = []


Stateful = AveragedWeights | EarlyStopping | ReduceLROnPlateau  # their memory is part of a fit's state


class Recorder(keras.callbacks.Callback):
    """Turn Keras' logs into epochs, report each epoch and its `steps` to `callbacks`, and measure the time.

    The callbacks first receive the epochs of `start`, the state from which the fit is resumed. If one of them stops the
    fit after the last of these epochs, `stopped` is True and no other epoch must follow. Each epoch is validated on
    `images` images.
    """

    def __init__(
        self, model: keras.Model, steps: int, callbacks: Sequence[FitCallback], start: State, images: int
    ) -> None:
        super().__init__()
        self._steps, self._callbacks, self._images = steps, callbacks, images
        self._begin = time.perf_counter() - start.seconds
        self.step_seconds = start.step_seconds  # of training, without validation
        self.stopped = start.stopped_by_callback
        self.epochs = [Epoch(number, metrics, images) for number, metrics in enumerate(start.epochs, 1)]
        answers = [self._report(epoch) for epoch in self.epochs]
        if answers and answers[-1] and not start.ended:  # the fit is only resumed to come to its end
            self.stopped = True
            for callback in callbacks:
                callback.on_checkpoint(Checkpoint(model, False, lambda: start))

    def seconds(self) -> float:
        """Return the seconds of fitting so far, with those before the fit was resumed."""
        return time.perf_counter() - self._begin

    def epoch_seconds(self) -> float:
        """Return the seconds since the current epoch began."""
        return time.perf_counter() - self._epoch_begin

    def record(self, metrics: Mapping[str, float]) -> None:
        """Add an epoch and report it; stop the fit if a callback asks for it. Raise WorkError if the loss diverged."""
        epoch = Epoch(len(self.epochs) + 1, metrics, self._images)
        self.epochs.append(epoch)
        if not math.isfinite(metrics.get("val_loss", 0.0)):
            what = f"the validation loss became {metrics['val_loss']} in epoch {epoch.number}"
            raise WorkError(f"{what}; lower training.learning_rate")
        if self._report(epoch):
            self.stopped = self.model.stop_training = True

    def _report(self, epoch: Epoch) -> bool:
        # a list: every callback receives the epoch, even after an earlier one asked to stop
        return any([callback.on_epoch(epoch) for callback in self._callbacks])

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:  # noqa: D102
        self._epoch_begin = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:  # noqa: D102
        interrupts.check()
        loss, epoch = (logs or {}).get("loss", 0.0), len(self.epochs) + 1
        if not math.isfinite(loss):
            raise WorkError(f"the training loss became {loss} in epoch {epoch}; lower training.learning_rate")
        for callback in self._callbacks:
            callback.on_step(epoch, min(batch + 1, self._steps), self._steps)  # the last call may run fewer steps

    def on_test_begin(self, logs: Logs = None) -> None:  # noqa: D102
        self.step_seconds += self.epoch_seconds()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:  # noqa: D102
        logs = logs or {}
        if "val_loss" not in logs:  # without validation, on_test_begin was not called
            self.step_seconds += self.epoch_seconds()
        metrics = losses(logs, "train")
        if held_out := {name.removeprefix("val_"): logs[name] for name in logs if name.startswith("val_")}:
            metrics |= losses(held_out, "val")
        rate = float(self.model.optimizer.learning_rate)
        self.record({**metrics, "learning_rate": rate, "epoch_seconds": self.epoch_seconds()})


@dataclass(eq=False)
class Checkpointer(keras.callbacks.Callback):
    """Restore the state `start` when the fit begins, and offer a checkpoint after each epoch.

    It must be the last callback: Keras' own callbacks reset themselves when a fit begins, and must handle an epoch
    before this one does.
    """

    start: State
    recorder: Recorder
    stateful: Mapping[str, Stateful]  # by the name that its memory has in the state
    callbacks: Sequence[FitCallback]  # receive the checkpoints

    def __post_init__(self) -> None:
        super().__init__()

    def on_train_begin(self, logs: Logs = None) -> None:  # noqa: D102
        if not self.start.epochs:
            return
        self.model.optimizer.build(self.model.trainable_variables)
        _assign(self.model.variables, self.start.variables)
        _assign(self.model.optimizer.variables, self.start.optimizer)
        for name, callback in self.stateful.items():
            callback.restore(self.start.callbacks[name])

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:  # noqa: D102
        stopping = self.stateful.get("early_stopping")  # None without validation images
        is_best = isinstance(stopping, EarlyStopping) and stopping.best_epoch == epoch
        for callback in self.callbacks:
            callback.on_checkpoint(Checkpoint(self.model, is_best, self._state))

    def _state(self) -> State:
        stopping = self.stateful.get("early_stopping")
        return State(
            epochs=tuple(epoch.metrics for epoch in self.recorder.epochs),
            seconds=self.recorder.seconds(),
            step_seconds=self.recorder.step_seconds,
            stopped=isinstance(stopping, EarlyStopping) and stopping.stopped_epoch > 0,
            stopped_by_callback=self.recorder.stopped,
            variables=_copies(self.model.variables),
            optimizer=_copies(self.model.optimizer.variables),
            callbacks={name: callback.state() for name, callback in self.stateful.items()},
        )


def keras_callbacks(
    training: TrainingConfig, recorder: Recorder, callbacks: Sequence[FitCallback], start: State, monitor: str | None
) -> list[keras.callbacks.Callback]:
    """Return the Keras callbacks of a fit in the order in which they must act.

    The recorder comes first, to see the learning rate that the epoch had; the averages come before the callback that
    keeps the best weights; checkpoints come last. `monitor` is the entry of Keras' logs by which epochs are compared.
    If it is None, because no images are held out, the fit is not stopped early and `plateau` has no effect.
    """
    mode = "max" if training.monitor == "val_accuracy" else "min"
    stateful: dict[str, Stateful] = {}
    if training.ema:
        stateful["ema"] = AveragedWeights()
    if monitor:
        patience = training.patience or training.epochs
        stateful["early_stopping"] = EarlyStopping(monitor, patience=patience, mode=mode, restore_best_weights=True)
    if monitor and training.schedule == "plateau":
        factor, patience = training.plateau_factor, training.plateau_patience
        stateful["plateau"] = ReduceLROnPlateau(monitor, factor=factor, patience=patience, mode=mode)
    return [recorder, *stateful.values(), Checkpointer(start, recorder, stateful, callbacks)]


def losses(logs: Mapping[str, float], prefix: str) -> dict[str, float]:
    """Return the cross-entropy and the accuracy in Keras' logs as the metrics that a run logs, such as `val_loss`."""
    return {f"{prefix}_loss": logs.get(CROSS_ENTROPY, logs["loss"]), f"{prefix}_accuracy": logs["accuracy"]}


def _copies(variables: Sequence[keras.Variable]) -> list[Array]:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _assign(variables: Sequence[keras.Variable], arrays: Sequence[Array]) -> None:
    if [tuple(variable.shape) for variable in variables] != [array.shape for array in arrays]:
        raise WorkError("the checkpoint is of another network; did fmnist_exp or Keras change since it was written?")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
