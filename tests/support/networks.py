"""Small networks and what they answer: directly, after saving and loading, and through ONNX Runtime."""

from pathlib import Path

import keras
import numpy as np
import onnxruntime

from fmnist_exp import models
from fmnist_exp.config.schema import ModelConfig
from fmnist_exp.export import onnx as onnx_export


def mlp(*widths: int, **fields) -> keras.Model:
    return models.build(ModelConfig(family="mlp", widths=widths, **fields))


def cnn(**fields) -> keras.Model:
    return models.build(ModelConfig(family="cnn", **{"widths": (4, 6), **fields}))


def kinds(model: keras.Model) -> list[str]:
    return [type(layer).__name__ for layer in model.layers]


def of_kind(model: keras.Model, kind: str) -> list[keras.Layer]:
    return [layer for layer in model.layers if type(layer).__name__ == kind]


def answers(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return np.asarray(model(images))


def saved_and_loaded(model: keras.Model, folder: Path) -> keras.Model:
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras", safe_mode=True)


def onnx_answers(model: keras.Model, images: np.ndarray, folder: Path) -> np.ndarray:
    onnx_export.export(model, folder / "model.onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]
