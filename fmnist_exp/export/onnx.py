"""A Keras model as an ONNX file, in a fraction of the time that `model.export` takes.

tf2onnx goes through a graph dozens of times and copies all of its constants each time. So the graph that it gets has
the large weights as inputs; in what it returns they become constants. ONNX Runtime makes the same of both.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fmnist_exp.backend import inference

if TYPE_CHECKING:
    import keras


def export(model: keras.Model, file: Path) -> None:
    """Write a float32 model that runs on TensorFlow: uint8 `images` (batch, 28, 28) to probabilities (batch, 10)."""
    import onnx
    import tf2onnx

    arrays = {f"weight_{place}": np.asarray(variable) for place, variable in enumerate(_variables(model))}
    large = {name: array for name, array in arrays.items() if array.ndim > 1}  # the rest is folded into these
    inputs: dict[str, tuple[list[int | None], Any]] = {"images": ([None, 28, 28], np.uint8)}
    inputs |= {name: (list(array.shape), array.dtype) for name, array in large.items()}

    def answer(images: Any, *given: Any) -> Any:
        values = list((arrays | dict(zip(large, given, strict=True))).values())
        trained = len(model.trainable_variables)
        probabilities, _ = model.stateless_call(values[:trained], values[trained:], images, training=False)
        return probabilities

    converted, _ = tf2onnx.convert.from_function(*inference.graph(answer, inputs))
    graph = converted.graph
    weights = [given for given in graph.input if given.name in large]
    for given in weights:
        graph.input.remove(given)
        graph.initializer.append(onnx.numpy_helper.from_array(large[given.name], given.name))
    onnx.save(converted, file)


def _variables(model: keras.Model) -> list[Any]:
    return [*model.trainable_variables, *model.non_trainable_variables]
