"""Compile and fit a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from fmnist_exp.backend import setup
from fmnist_exp.config.schema import ExperimentConfig, TrainingConfig
from fmnist_exp.data.batches import Batches, targets
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import RequestError
from fmnist_exp.training import optimizers
from fmnist_exp.training.callbacks import Checkpointer, EarlyStopping, Recorder, ReduceLROnPlateau, Stateful
from fmnist_exp.training.ema import AveragedWeights
from fmnist_exp.training.events import Epoch, FitCallback
from fmnist_exp.training.state import State

VALIDATION_BATCH = 1000  # images; only the speed depends on it


@dataclass(frozen=True)
class Fit:
    """A finished fit. The model holds the weights of the epoch `best`, the last one if no images were held out."""

    epochs: tuple[Epoch, ...]
    best: Epoch
    seconds: float
    images_per_second: float  # training images only, without the time of validation
    stopped_by_callback: bool


def check(training: TrainingConfig, data: FashionMNIST) -> None:
    """Raise RequestError if these settings do not suit the data."""
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
    """Train `model` in place and leave the weights of the best epoch in it.

    A model without trainable weights is only measured, as one epoch.

    Args:
        model: a freshly built network.
        config: the experiment; its training and augmentation sections and its seed decide the fit.
        data: the training images and, unless it is empty, the validation split.
        callbacks: receive every step, epoch and checkpoint.
        start: the state of an interrupted fit. The fit is resumed there and comes to the same end, to the last bit on
            the same CPU. The callbacks receive the earlier epochs first, and `Fit.seconds` is the sum of both parts,
            without the epoch that was lost in between.

    Raises:
        WorkError: the loss became infinite or not a number, or `start` is the state of another network.
    """
    training, start = config.training, start or State()
    feed = Batches(config, data.train, epochs_done=len(start.epochs))
    steps = len(feed)
    _compile(model, training, steps)
    recorder = Recorder(steps, callbacks, start)
    if model.trainable_weights:
        held_out = len(data.validation.images) > 0
        model.fit(
            feed,
            initial_epoch=len(start.epochs),
            epochs=len(start.epochs) if start.stopped else training.epochs,
            verbose=0,
            shuffle=False,
            validation_data=(data.validation.images, targets(data.validation, training)) if held_out else None,
            validation_batch_size=VALIDATION_BATCH,
            callbacks=_keras_callbacks(training, recorder, callbacks, start, held_out),
        )
    else:
        _measure(model, training, data, recorder)
    seconds = recorder.seconds()
    best = _best(recorder.epochs, training.monitor)
    speed = len(recorder.epochs) * steps * training.batch_size / max(recorder.step_seconds, 1e-9)
    return Fit(tuple(recorder.epochs), best, seconds, speed, recorder.stopped)


def _compile(model: keras.Model, training: TrainingConfig, steps: int) -> None:
    if training.labels == "one_hot":
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=training.label_smoothing)
    else:
        loss = keras.losses.SparseCategoricalCrossentropy()
    model.compile(
        optimizer=optimizers.build(training, steps),
        loss=loss,
        metrics=["accuracy"],
        steps_per_execution=min(training.steps_per_execution, steps),
        jit_compile=not setup.on_tensorflow(),  # XLA makes TensorFlow 3 to 5 times slower on CPU
    )


def _keras_callbacks(
    training: TrainingConfig, recorder: Recorder, callbacks: Sequence[FitCallback], start: State, held_out: bool
) -> list[keras.callbacks.Callback]:
    """Return the callbacks in the order in which they must act.

    The recorder comes first, to see the learning rate that the epoch had; the averages come before the callback that
    keeps the best weights; checkpoints come last.
    """
    stateful: dict[str, Stateful] = {}
    early_stopping = None
    if training.ema:
        stateful["ema"] = AveragedWeights()
    if held_out:
        patience = training.patience or training.epochs
        early_stopping = EarlyStopping(training.monitor, patience=patience, restore_best_weights=True)
        stateful["early_stopping"] = early_stopping
    if held_out and training.schedule == "plateau":
        factor, patience = training.plateau_factor, training.plateau_patience
        stateful["plateau"] = ReduceLROnPlateau(training.monitor, factor=factor, patience=patience)
    checkpointer = Checkpointer(start, recorder, stateful, early_stopping, callbacks)
    return [recorder, *stateful.values(), checkpointer]


def _measure(model: keras.Model, training: TrainingConfig, data: FashionMNIST, recorder: Recorder) -> None:
    """Record one epoch in which nothing is trained."""
    recorder.set_model(model)
    recorder.on_epoch_begin(0)
    metrics: dict[str, float] = {}
    for prefix, split in (("train", data.train), ("val", data.validation)):
        if not len(split.images):
            continue
        labels = targets(split, training)
        measured = model.evaluate(split.images, labels, batch_size=VALIDATION_BATCH, verbose=0, return_dict=True)
        metrics |= {f"{prefix}_loss": measured["loss"], f"{prefix}_accuracy": measured["accuracy"]}
    recorder.step_seconds = recorder.epoch_seconds()
    recorder.record({**metrics, "learning_rate": 0.0, "epoch_seconds": recorder.step_seconds})


def _best(epochs: Sequence[Epoch], monitor: str) -> Epoch:
    """Return the first of the best epochs, as early stopping does, or the last epoch if no images were held out."""
    if monitor not in epochs[-1].metrics:
        return epochs[-1]
    sign = 1 if monitor == "val_accuracy" else -1
    return max(epochs, key=lambda epoch: sign * epoch.metrics[monitor])
