"""The predictor behind `mlflow.pyfunc.load_model`. Every model has a copy, so it imports nothing of this package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read at import; otherwise ONNX Runtime reports to its maker
import onnxruntime

SIDE = 28  # pixels
BATCH = 256  # images at a time: the feature maps of 10,000 images at once would take gigabytes


class Predictor:
    """The network in `folder`, run by ONNX Runtime on `threads` threads; 0 stands for all cores."""

    def __init__(self, folder: Path, class_names: tuple[str, ...], threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors only
        # waiting threads must not take the cores from the server around them
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # the memory of a large batch goes back to the system
        options.enable_cpu_mem_arena = False
        self.session = onnxruntime.InferenceSession(folder / "model.onnx", options, ["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.class_names = np.array(class_names)

    def probabilities(self, images: object) -> NDArray[np.float32]:
        """Return probabilities (N, 10) for images as `predict` takes them."""
        pixels = as_pixels(images)
        parts = [self._run(pixels[start : start + BATCH]) for start in range(0, len(pixels), BATCH)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def columns(self, images: object) -> dict[str, NDArray[np.generic]]:
        """Return the columns of the table that `predict` returns, in order."""
        probabilities = self.probabilities(images)
        labels = probabilities.argmax(axis=1)
        first = {"label": labels, "name": self.class_names[labels], "probability": probabilities.max(axis=1)}
        return first | {f"p{label}": probabilities[:, label] for label in range(probabilities.shape[1])}

    def predict(self, images: object, params: Mapping[str, object] | None = None) -> pd.DataFrame:
        """Return a table with one row per image: label, name, probability, p0 … p9.

        The images are an array or nested lists, (N, 28, 28) or (N, 28, 28, 1), uint8 or float, 0…255. Raises ValueError
        if they have another shape or type, or values out of range. MLflow passes `params`, which are ignored.
        """
        return pd.DataFrame(self.columns(images))

    def _run(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        answer: NDArray[np.float32] = self.session.run(None, {self.input: pixels})[0]
        return answer


def as_pixels(images: object) -> NDArray[np.uint8]:
    """Check images and return them as uint8 (N, 28, 28); floats are rounded. Raises ValueError."""
    try:
        array = np.asarray(images)
    except (ValueError, OverflowError) as error:
        raise ValueError("images must all have the same shape, (28, 28)") from error
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim != 3 or array.shape[1:] != (SIDE, SIDE) or len(array) == 0:
        raise ValueError(f"images must have the shape (N, {SIDE}, {SIDE}) with N at least 1, got {array.shape}")
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "iuf":
        raise ValueError(f"images must be numbers, got {array.dtype}")
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 255):
        raise ValueError("pixel values must be finite and lie in 0…255")
    if array.dtype.kind == "f" and 0 < array.max() <= 1 and (array % 1).any():
        raise ValueError("pixel values lie in 0…1; multiply them by 255")
    pixels: NDArray[np.uint8] = np.rint(array).astype(np.uint8)
    return pixels


def load(folder: Path, threads: int = 0) -> Predictor:
    """Return the predictor of a model's `data` folder."""
    names = (folder / "classes.txt").read_text(encoding="utf-8").splitlines()
    return Predictor(folder, tuple(names), threads)


def _load_pyfunc(path: str) -> Predictor:
    """Load the model for MLflow, which calls this function by its name."""
    return load(Path(path))
