"""The published funnel MLP in plain Keras: float32, stock layers, Keras' `fit` with its defaults.

Usage: python -m benchmarks.peers.funnel_mlp_keras FOLDER [--seed 0] [--epochs 30]
The same command resumes a fit that was stopped.
"""

from pathlib import Path

import keras
import numpy as np
from keras import callbacks, layers

EPOCHS, BATCH = 30, 32


def build() -> keras.Model:
    """Map images (B, 28, 28) in 0…1 to probabilities (B, 10); 567,434 parameters."""
    model = keras.Sequential(
        [
            layers.Input((28, 28)),
            layers.Flatten(),
            layers.Dense(512, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(256, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    adam = keras.optimizers.Adam(learning_rate=5e-4)
    model.compile(optimizer=adam, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def inputs(images: np.ndarray) -> np.ndarray:
    return images.astype("float32") / 255.0


def targets(labels: np.ndarray) -> np.ndarray:
    return labels


def recipe_callbacks(folder: Path) -> list[callbacks.Callback]:
    return [callbacks.EarlyStopping(monitor="val_loss", patience=3, restore_best_weights=True)]


if __name__ == "__main__":
    import sys

    from benchmarks.peers import curve

    curve.main(sys.modules[__name__])
