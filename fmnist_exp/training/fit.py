"""Compile and fit a model."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from fmnist_exp.backend import setup
from fmnist_exp.config.schema import ExperimentConfig, TrainingConfig
from fmnist_exp.data.batches import Batches, targets
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.training import optimizers
from fmnist_exp.training.callbacks import CROSS_ENTROPY, Recorder, keras_callbacks, losses
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


def fit(
    model: keras.Model,
    config: ExperimentConfig,
    data: FashionMNIST,
    callbacks: Sequence[FitCallback] = (),
    start: State | None = None,
) -> Fit:
    """Train `model`, a freshly built network, in place and leave the weights of the best epoch in it.

    A model without trainable weights is only measured, as one epoch. With the state `start` of an interrupted fit, the
    fit is resumed there and gives the same result, to the last bit on the same CPU: the callbacks receive the earlier
    epochs first, and `Fit.seconds` is the sum of both parts, without the epoch that was lost in between.

    Raises:
        WorkError: the loss became infinite or not a number, or `start` is the state of another network.
    """
    training, start = config.training, start or State()
    feed = Batches(config, data.train, epochs_done=len(start.epochs))
    steps = len(feed)
    extra = _cross_entropy(model, training)
    _compile(model, training, steps, extra)
    recorder = Recorder(model, steps, callbacks, start, len(data.validation.images))
    if model.trainable_weights:
        held_out = len(data.validation.images) > 0
        monitor = f"val_{CROSS_ENTROPY}" if extra and training.monitor == "val_loss" else training.monitor
        model.fit(
            feed,
            initial_epoch=len(start.epochs),
            epochs=len(start.epochs) if start.ended or recorder.stopped else training.epochs,
            verbose=0,
            shuffle=False,
            validation_data=(data.validation.images, targets(data.validation, training)) if held_out else None,
            validation_batch_size=VALIDATION_BATCH,
            callbacks=keras_callbacks(training, recorder, callbacks, start, monitor if held_out else None),
        )
    else:
        _measure(model, training, data, recorder)
    best = _best(recorder.epochs, training.monitor)
    speed = len(recorder.epochs) * steps * training.batch_size / max(recorder.step_seconds, 1e-9)
    return Fit(tuple(recorder.epochs), best, recorder.seconds(), speed, recorder.stopped)


def _compile(model: keras.Model, training: TrainingConfig, steps: int, extra: Sequence[keras.metrics.Metric]) -> None:
    if training.labels == "one_hot":
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=training.label_smoothing)
    else:
        loss = keras.losses.SparseCategoricalCrossentropy()
    model.compile(
        optimizer=optimizers.build(training, steps),
        loss=loss,
        metrics=["accuracy", *extra],
        steps_per_execution=min(training.steps_per_execution, steps),
        jit_compile=not setup.on_tensorflow(),  # XLA makes TensorFlow 3 to 5 times slower on CPU
    )


def _cross_entropy(model: keras.Model, training: TrainingConfig) -> list[keras.metrics.Metric]:
    """Return the cross-entropy as a metric if label smoothing or an L2 penalty make the loss another number."""
    if not (training.label_smoothing or model.losses):
        return []
    one_hot = training.labels == "one_hot"
    kind = keras.metrics.CategoricalCrossentropy if one_hot else keras.metrics.SparseCategoricalCrossentropy
    return [kind(name=CROSS_ENTROPY)]


def _measure(model: keras.Model, training: TrainingConfig, data: FashionMNIST, recorder: Recorder) -> None:
    """Record one epoch in which nothing is trained."""
    recorder.set_model(model)
    recorder.on_epoch_begin(0)
    metrics: dict[str, float] = {}
    for prefix, split in (("train", data.train), ("val", data.validation)):
        if len(split.images):
            labels = targets(split, training)
            measured = model.evaluate(split.images, labels, batch_size=VALIDATION_BATCH, verbose=0, return_dict=True)
            metrics |= losses(measured, prefix)
    recorder.step_seconds = recorder.epoch_seconds()
    recorder.record({**metrics, "learning_rate": 0.0, "epoch_seconds": recorder.step_seconds})


def _best(epochs: Sequence[Epoch], monitor: str) -> Epoch:
    """Return the first of the best epochs, as early stopping does, or the last epoch if no images were held out."""
    if monitor not in epochs[-1].metrics:
        return epochs[-1]
    sign = 1 if monitor == "val_accuracy" else -1
    return max(epochs, key=lambda epoch: sign * epoch.metrics[monitor])
