"""KerasTuner's Hyperband as its guide shows it: a hypermodel, factor 3, at most as many epochs as the others.

Iterations of all its brackets follow each other until the time is over. No tracking.
"""

import contextlib
import itertools
import tempfile

import keras_tuner

from benchmarks.peers import network

asked = network.task()
training, validation = network.images()
count = itertools.count()


def build(hp: keras_tuner.HyperParameters) -> object:
    depth = hp.Int("depth", 2, 3)
    filters = [hp.Int(f"width_{i}", low, high, step=network.STEP) for i, (low, high, _) in enumerate(network.BLOCKS)]
    setting = network.Setting(
        dropout=hp.Float("dropout", *network.DROPOUT),
        l2=hp.Float("l2", *network.L2, sampling="log"),
        learning_rate=hp.Float("learning_rate", *network.RATE, sampling="log"),
        widths=tuple(filters[:depth]),
    )
    return network.build(setting, asked.recipe, hp.values.get("tuner/epochs", network.EPOCHS), len(training[0]))


class Counting(network.Notes):
    """KerasTuner copies its callbacks for each trial, and tries a trial again unless its error is fatal."""

    def on_train_begin(self, logs: object = None) -> None:
        number = next(count)
        self.trial = lambda: number

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if self.asked.left < 0:
            raise keras_tuner.errors.FatalError("the time is over")

    def __deepcopy__(self, memory: object) -> "Counting":
        return Counting(self.asked, self.trial)


with tempfile.TemporaryDirectory() as folder, contextlib.suppress(keras_tuner.errors.FatalError):
    tuner = keras_tuner.Hyperband(
        build,
        objective="val_accuracy",
        max_epochs=network.EPOCHS,
        factor=3,
        hyperband_iterations=1000,
        seed=asked.seed,
        directory=folder,
        project_name="race",
    )
    tuner.search(
        *training,
        batch_size=network.BATCH,
        validation_data=validation,
        verbose=0,
        callbacks=[Counting(asked, lambda: 0)],
    )
