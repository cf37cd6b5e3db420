"""The published simple CNN in plain Keras: float32, stock layers, Keras' `fit` with its default batch of 32.

Usage: python -m benchmarks.peers.simple_cnn_keras FOLDER [--seed 0] [--epochs 5]
The same command resumes a fit that was stopped.
"""

from pathlib import Path

import keras
import numpy as np
from keras import callbacks, layers

EPOCHS, BATCH = 5, 32


def build() -> keras.Model:
    """Map images (B, 28, 28, 1) in 0…1 to probabilities (B, 10); 121,930 parameters."""
    model = keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(32, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def inputs(images: np.ndarray) -> np.ndarray:
    return images.reshape(-1, 28, 28, 1).astype("float32") / 255.0


def targets(labels: np.ndarray) -> np.ndarray:
    return labels


def recipe_callbacks(folder: Path) -> list[callbacks.Callback]:
    return []


if __name__ == "__main__":
    import sys

    from benchmarks.peers import curve

    curve.main(sys.modules[__name__])
