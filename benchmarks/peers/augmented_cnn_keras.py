"""The published CNN with augmented copies in plain Keras: float32, stock layers, Keras' `fit` with batches of 64.

The published project names the kinds of augmentation but not their sizes. These are those of
experiments/augmented_cnn.yaml; Keras' layers draw a size for each image. L2, dropout and patience are usual values.
Usage: python -m benchmarks.peers.augmented_cnn_keras FOLDER [--seed 0] [--epochs 10]
The same command resumes a fit that was stopped.
"""

from pathlib import Path

import keras
import numpy as np
from keras import callbacks, layers, regularizers

EPOCHS, BATCH = 10, 64
COPIED_AT_ONCE = 1000  # images


def build() -> keras.Model:
    """Map images (B, 28, 28, 1) in 0…1 to probabilities (B, 10); 871,402 parameters."""
    penalty = regularizers.L2(1e-4)
    model = keras.Sequential([layers.Input((28, 28, 1))])
    for filters in (32, 64):
        for _ in range(2):
            model.add(layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_regularizer=penalty))
            model.add(layers.BatchNormalization())
        model.add(layers.MaxPooling2D())
        model.add(layers.Dropout(0.25))
    model.add(layers.Flatten())
    model.add(layers.Dense(256, activation="relu", kernel_regularizer=penalty))
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(10, activation="softmax"))
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    return model


def inputs(images: np.ndarray) -> np.ndarray:
    return images.reshape(-1, 28, 28, 1).astype("float32") / 255.0


def targets(labels: np.ndarray) -> np.ndarray:
    return keras.utils.to_categorical(labels, 10)


def extended(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the training images and labels, followed by an augmented copy of each image."""
    change = keras.Sequential(
        [
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(10 / 360, fill_mode="constant"),
            layers.RandomTranslation(2 / 28, 2 / 28, fill_mode="constant"),
            layers.RandomShear(0.09, 0.09, fill_mode="constant"),  # tan 5°
            layers.RandomZoom(0.1, fill_mode="constant"),
        ]
    )
    parts = [x[start : start + COPIED_AT_ONCE] for start in range(0, len(x), COPIED_AT_ONCE)]
    copies = [keras.ops.convert_to_numpy(change(part, training=True)) for part in parts]
    return np.concatenate([x, *copies]), np.concatenate([y, y])


def recipe_callbacks(folder: Path) -> list[callbacks.Callback]:
    return [
        callbacks.EarlyStopping(monitor="val_loss", patience=4, restore_best_weights=True),
        callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=1),
    ]


if __name__ == "__main__":
    import sys

    from benchmarks.peers import curve

    curve.main(sys.modules[__name__])
