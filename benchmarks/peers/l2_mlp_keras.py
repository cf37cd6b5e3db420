"""The published MLP with L2 in plain Keras: float32, stock layers, Keras' `fit` with its defaults.

The published project gives neither widths nor epochs. These are those of experiments/l2_mlp.yaml, with an L2 of 1e-3.
Usage: python -m benchmarks.peers.l2_mlp_keras FOLDER [--seed 0] [--epochs 15]
The same command resumes a fit that was stopped.
"""

from pathlib import Path

import keras
import numpy as np
from keras import callbacks, layers, regularizers

EPOCHS, BATCH = 15, 32


def build() -> keras.Model:
    """Map images (B, 28, 28) in 0…1 to probabilities (B, 10); 235,146 parameters."""
    model = keras.Sequential([layers.Input((28, 28)), layers.Flatten()])
    for units in (256, 128):
        model.add(layers.Dense(units, activation="relu", kernel_regularizer=regularizers.L2(1e-3)))
        model.add(layers.Dropout(0.3))
    model.add(layers.Dense(10, activation="softmax"))
    adam = keras.optimizers.Adam(learning_rate=1e-3)
    model.compile(optimizer=adam, loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def inputs(images: np.ndarray) -> np.ndarray:
    return images.astype("float32") / 255.0


def targets(labels: np.ndarray) -> np.ndarray:
    return keras.utils.to_categorical(labels, 10)


def recipe_callbacks(folder: Path) -> list[callbacks.Callback]:
    return []


if __name__ == "__main__":
    import sys

    from benchmarks.peers import curve

    curve.main(sys.modules[__name__])
