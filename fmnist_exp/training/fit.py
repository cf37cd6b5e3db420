"""Compile and fit a model. Knows no MLflow and no Optuna: what watches a run comes in as callbacks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fmnist_exp.backend import interrupts, setup
from fmnist_exp.config.schema import ExperimentConfig, TrainingConfig
from fmnist_exp.data.batches import Batches, targets
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.training.ema import averaging
from fmnist_exp.training.events import Checkpoint, Epoch, FitCallback
from fmnist_exp.training.muon import muon
from fmnist_exp.training.state import State, keeper

if TYPE_CHECKING:
    import keras

VALIDATION_BATCH = 1000  # images; only speed depends on it


@dataclass(frozen=True)
class Fit:
    """A finished fit; the model holds the weights of `best`, which without validation images is the last epoch."""

    epochs: tuple[Epoch, ...]
    best: Epoch
    seconds: float
    images_per_second: float  # training images only, validation's time left out
    stopped_by_callback: bool


def check(training: TrainingConfig, data: FashionMNIST) -> None:
    """Raise RequestError for settings that this data cannot serve."""
    if training.batch_size > len(data.train.images):
        raise RequestError(
            f"training.batch_size={training.batch_size}: must be at most {len(data.train.images)}, the training images"
        )


def fit(
    model: keras.Model,
    config: ExperimentConfig,
    data: FashionMNIST,
    callbacks: Sequence[FitCallback] = (),
    start: State | None = None,
) -> Fit:
    """Train `model` in place and leave the best epoch's weights in it.

    A model without trainable weights is only measured, as one epoch. With `start` the fit goes on where an earlier one
    was cut off and comes to the same end, to the last bit on the same CPU. Callbacks hear of the earlier epochs first,
    and `seconds` is the sum of both parts, without the epoch that was lost in between.

    Raises:
        WorkError: the loss became infinite or not a number.
    """
    training, start, held_out = config.training, start or State(), len(data.validation.images) > 0
    done = len(start.epochs)
    feed = Batches(config, data.train, epochs_done=done)
    steps = len(feed)
    _compile(model, training, steps)
    recorder = _recorder(data, callbacks, steps, start)
    if model.trainable_weights:
        # fmt: off
        model.fit(feed, initial_epoch=done, epochs=done if start.stopped else training.epochs, verbose=0, shuffle=False,
                  validation_data=(data.validation.images, targets(data.validation, training)) if held_out else None,
                  validation_batch_size=VALIDATION_BATCH,
                  callbacks=_callbacks(training, recorder, callbacks, start, held_out))
        # fmt: on
    else:
        recorder.measure_once(model, targets(data.train, training), targets(data.validation, training))
    seconds = recorder.seconds()
    best = _best(recorder.epochs, training.monitor)
    speed = len(recorder.epochs) * steps * training.batch_size / max(recorder.step_seconds, 1e-9)
    return Fit(tuple(recorder.epochs), best, seconds, speed, recorder.stopped)


def _best(epochs: Sequence[Epoch], monitor: str) -> Epoch:
    """The first of the best epochs, as Keras' EarlyStopping keeps it; the last one where nothing was held out."""
    if monitor not in epochs[-1].metrics:
        return epochs[-1]
    sign = 1 if monitor == "val_accuracy" else -1
    return max(epochs, key=lambda epoch: sign * epoch.metrics[monitor])


def _compile(model: keras.Model, training: TrainingConfig, steps: int) -> None:
    from keras import losses

    loss: Any = losses.SparseCategoricalCrossentropy()
    if training.labels == "one_hot":
        loss = losses.CategoricalCrossentropy(label_smoothing=training.label_smoothing)
    model.compile(
        optimizer=optimizer(training, steps),
        loss=loss,
        metrics=["accuracy"],
        steps_per_execution=min(training.steps_per_execution, steps),
        jit_compile=not setup.on_tensorflow(),  # there XLA is 3 to 5 times slower on CPU; JAX compiles with it alone
    )


def optimizer(training: TrainingConfig, steps: int) -> keras.optimizers.Optimizer:
    """A fresh one, with its schedule over `training.epochs` of so many steps."""
    from keras import optimizers

    rate: Any = training.learning_rate
    if training.schedule == "one_cycle":  # Smith 2018, "Super-Convergence": a linear climb, then a cosine to zero
        total = steps * training.epochs
        climb = int(training.warmup * total)
        rate = optimizers.schedules.CosineDecay(rate / 25, total - climb, warmup_target=rate, warmup_steps=climb)
    average: dict[str, Any] = {"use_ema": True, "ema_momentum": training.ema} if training.ema else {}
    if training.optimizer == "sgd":
        decay = training.weight_decay or None
        return optimizers.SGD(rate, momentum=training.momentum, nesterov=True, weight_decay=decay, **average)
    if training.optimizer == "muon":
        return muon(rate, training.momentum, training.weight_decay, **average)
    if training.optimizer == "adamw":
        return optimizers.AdamW(rate, weight_decay=training.weight_decay, **average)
    return optimizers.Adam(rate, **average)


def _callbacks(
    training: TrainingConfig, recorder: Any, callbacks: Sequence[FitCallback], start: State, held_out: bool
) -> list[Any]:
    import keras

    patience = training.patience or training.epochs
    stopping = keras.callbacks.EarlyStopping(training.monitor, patience=patience, restore_best_weights=True)
    plateau = keras.callbacks.ReduceLROnPlateau(
        training.monitor, factor=training.plateau_factor, patience=training.plateau_patience
    )
    # the recorder first: it must see the learning rate that the epoch had; the averages before who keeps the best
    averages = [averaging()] if training.ema else []
    watching = [stopping, *([plateau] if training.schedule == "plateau" else [])] if held_out else []
    working = [recorder, *averages, *watching]

    def tell(is_best: bool, state: Callable[[], State]) -> None:
        checkpoint = Checkpoint(recorder.model, is_best, state)
        for callback in callbacks:
            callback.on_checkpoint(checkpoint)

    return [*working, keeper(start, working, recorder, tell)]


def _recorder(data: FashionMNIST, callbacks: Sequence[FitCallback], steps: int, start: State) -> Any:
    """The Keras callback that turns Keras' logs into Epochs and tells the callbacks."""
    from keras.callbacks import Callback

    class Recorder(Callback):
        def __init__(self) -> None:
            super().__init__()
            self.epochs = [Epoch(number, metrics) for number, metrics in enumerate(start.epochs, 1)]
            self.stopped = start.stopped_by_callback
            self.step_seconds = start.step_seconds
            self.begin = time.perf_counter() - start.seconds
            for epoch in self.epochs:
                self.tell(epoch)

        def seconds(self) -> float:
            return time.perf_counter() - self.begin

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.epoch_start = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
            interrupts.check()
            loss = (logs or {}).get("loss", 0.0)
            if not math.isfinite(loss):
                epoch = len(self.epochs) + 1
                raise WorkError(f"the training loss became {loss} in epoch {epoch}; lower training.learning_rate")
            for callback in callbacks:
                callback.on_step(len(self.epochs) + 1, min(batch + 1, steps), steps)  # the last call may run short

        def on_test_begin(self, logs: Any = None) -> None:
            self.step_seconds += time.perf_counter() - self.epoch_start

        def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
            logs = logs or {}
            if "val_loss" not in logs:  # no validation, whose start would have told the time
                self.step_seconds += time.perf_counter() - self.epoch_start
            metrics = {
                "train_loss": logs["loss"],
                "train_accuracy": logs["accuracy"],
                **{name: logs[name] for name in ("val_loss", "val_accuracy") if name in logs},
                "learning_rate": float(self.model.optimizer.learning_rate),
                "epoch_seconds": time.perf_counter() - self.epoch_start,
            }
            self.record(metrics)

        def record(self, metrics: Mapping[str, float]) -> None:
            self.epochs.append(Epoch(len(self.epochs) + 1, metrics))
            if not math.isfinite(metrics.get("val_loss", 0.0)):
                raise WorkError(f"the validation loss became {metrics['val_loss']} in epoch {len(self.epochs)}")
            if self.tell(self.epochs[-1]):
                self.stopped = self.model.stop_training = True

        def tell(self, epoch: Epoch) -> bool:
            # every callback hears of the epoch, also when an earlier one asks to stop
            return any([callback.on_epoch(epoch) for callback in callbacks])

        def measure_once(self, model: keras.Model, train_labels: NDArray[Any], val_labels: NDArray[Any]) -> None:
            self.set_model(model)
            self.on_epoch_begin(0)
            measured: dict[str, float] = {}
            for prefix, split, labels in (("train", data.train, train_labels), ("val", data.validation, val_labels)):
                if not len(split.images):
                    continue
                result = model.evaluate(split.images, labels, batch_size=VALIDATION_BATCH, verbose=0, return_dict=True)
                measured |= {f"{prefix}_loss": result["loss"], f"{prefix}_accuracy": result["accuracy"]}
            self.step_seconds = time.perf_counter() - self.epoch_start
            self.record({**measured, "learning_rate": 0.0, "epoch_seconds": self.step_seconds})

    return Recorder()
