"""The published deep CNN in plain Keras: float32, stock layers, Keras' `fit` with its defaults.

The published project gives no batch size; 32 is the default of `fit`.
Usage: python -m benchmarks.peers.deep_cnn_keras FOLDER [--seed 0] [--epochs 10]
The same command resumes a fit that was stopped.
"""

from pathlib import Path

import keras
import numpy as np
from keras import callbacks, layers

EPOCHS, BATCH = 10, 32


def build() -> keras.Model:
    """Map images (B, 28, 28, 1) in 0…1 to probabilities (B, 10); 1,869,258 parameters."""
    model = keras.Sequential([layers.Input((28, 28, 1))])
    for filters, dropout in ((64, 0.25), (128, 0.35)):
        model.add(layers.Conv2D(filters, (3, 3), padding="same", activation="relu"))
        model.add(layers.BatchNormalization())
        model.add(layers.Conv2D(filters, (3, 3), padding="same", activation="relu"))
        model.add(layers.MaxPooling2D((2, 2)))
        model.add(layers.Dropout(dropout))
    model.add(layers.Flatten())
    model.add(layers.Dense(256, activation="relu"))
    model.add(layers.BatchNormalization())
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(10, activation="softmax"))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def inputs(images: np.ndarray) -> np.ndarray:
    return images.reshape(-1, 28, 28, 1).astype("float32") / 255.0


def targets(labels: np.ndarray) -> np.ndarray:
    return labels


def recipe_callbacks(folder: Path) -> list[callbacks.Callback]:
    return [
        callbacks.EarlyStopping(monitor="val_loss", patience=5, restore_best_weights=True),
        callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=2),
        callbacks.ModelCheckpoint(str(folder / "best.keras"), monitor="val_loss", save_best_only=True),
    ]


if __name__ == "__main__":
    import sys

    from benchmarks.peers import curve

    curve.main(sys.modules[__name__])
