"""KerasTuner's Hyperband as its guide shows it, without tracking: a hypermodel and factor 3.

A trial has at most as many epochs as those of the other contestants. All brackets are repeated until the time is over.
The tuner draws all of its settings, so the first setting of the race is fitted before it starts.
"""

import contextlib
import itertools
import tempfile

import keras_tuner

from benchmarks.peers import network

task = network.task()
training, validation = network.images()
count = itertools.count(1)


def build(hp: keras_tuner.HyperParameters) -> object:
    depth = hp.Int("depth", 2, 3)
    filters = [hp.Int(f"width_{i}", low, high, step=network.STEP) for i, (low, high, _) in enumerate(network.BLOCKS)]
    setting = network.Setting(
        dropout=hp.Float("dropout", *network.DROPOUT),
        l2=hp.Float("l2", *network.L2, sampling="log"),
        learning_rate=hp.Float("learning_rate", *task.how.rate, sampling="log"),
        widths=tuple(filters[:depth]),
    )
    return network.build(setting, task.recipe, hp.values.get("tuner/epochs", network.EPOCHS), len(training[0]))


class NumberedNotes(network.Notes):
    """Numbers the trials; KerasTuner copies its callbacks for each trial and retries it unless the error is fatal."""

    def on_train_begin(self, logs: object = None) -> None:
        number = next(count)
        self.trial = lambda: number

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if self.task.left < 0:
            raise keras_tuner.errors.FatalError("the time is over")

    def __deepcopy__(self, memory: object) -> "NumberedNotes":
        return NumberedNotes(self.task, self.trial)


with tempfile.TemporaryDirectory() as folder, contextlib.suppress(TimeoutError, keras_tuner.errors.FatalError):
    network.fit(task.how.first, task, trial=0)
    tuner = keras_tuner.Hyperband(
        build,
        objective="val_accuracy",
        max_epochs=network.EPOCHS,
        factor=3,
        hyperband_iterations=1000,
        seed=task.seed,
        directory=folder,
        project_name="race",
    )
    tuner.search(
        *training,
        batch_size=task.how.batch,
        validation_data=validation,
        verbose=0,
        callbacks=[NumberedNotes(task, lambda: 0)],
    )
