"""A model's folder with two faces: `mlflow.keras.load_model` and a fast `mlflow.pyfunc.load_model` on ONNX Runtime."""

from __future__ import annotations

import importlib.metadata
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fmnist_exp import serving
from fmnist_exp.data import CLASS_NAMES
from fmnist_exp.errors import WorkError
from fmnist_exp.serving import predictor

if TYPE_CHECKING:
    import keras
    from mlflow.models import Model

SERVING_PACKAGES = ("mlflow", "numpy", "onnxruntime", "pandas")
TOLERANCE = 1e-4  # of a probability, between Keras and ONNX Runtime


def save(folder: Path, metadata: Model, model: keras.Model, examples: NDArray[np.uint8]) -> None:
    """Write `model` to `folder` as an MLflow model, and compare its two faces on `examples`.

    Args:
        folder: must not exist yet.
        metadata: MLflow's description of the model, completed and written here.
        model: float32, stock Keras layers only; uint8 images (batch, 28, 28) to probabilities (batch, 10).
        examples: real images (N, 28, 28); the first becomes the input example.

    Raises:
        WorkError: ONNX Runtime and Keras disagree by more than 1e-4.
    """
    import mlflow

    folder.mkdir()
    requirements = [f"{name}=={importlib.metadata.version(name)}" for name in SERVING_PACKAGES]
    mlflow.keras.save_model(
        model,
        str(folder),
        mlflow_model=metadata,
        signature=_signature(),
        input_example=examples[:1],
        pip_requirements=requirements,
    )
    _export_onnx(model, folder / "data" / "model.onnx")
    (folder / "data" / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n", encoding="utf-8")
    _copy_code(folder / "code")
    mlflow.pyfunc.add_to_model(
        metadata,
        loader_module=predictor.__name__,
        data="data",
        code="code",
        conda_env="conda.yaml",
        python_env="python_env.yaml",
    )
    metadata.model_size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    metadata.save(str(folder / "MLmodel"))
    _compare(folder, model, examples)


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    columns: list[ColSpec | TensorSpec] = [ColSpec(DataType.long, "label"), ColSpec(DataType.string, "name")]
    columns.append(ColSpec(DataType.float, "probability"))
    columns += [ColSpec(DataType.float, f"p{label}") for label in range(len(CLASS_NAMES))]
    signature = ModelSignature(Schema([TensorSpec(np.dtype(np.uint8), (-1, 28, 28))]), Schema(columns))
    # The predictor checks its input itself: MLflow's own check would refuse float images.
    signature._is_signature_from_type_hint = True
    return signature


def _export_onnx(model: keras.Model, file: Path) -> None:
    with warnings.catch_warnings():
        # tf2onnx, as Keras calls it, asks NumPy for a name that NumPy has deprecated
        warnings.filterwarnings("ignore", "In the future `np.object`", FutureWarning)
        model.export(str(file), format="onnx", verbose=False)


def _copy_code(folder: Path) -> None:
    """The predictor as a package of the same name, so that the model loads where ours is not installed."""
    package = folder / Path(*serving.__name__.split("."))
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    for module in (serving, predictor):
        shutil.copy(str(module.__file__), package)


def _compare(folder: Path, model: keras.Model, examples: NDArray[np.uint8]) -> None:
    served = predictor._load_pyfunc(str(folder / "data")).probabilities(examples)
    difference = float(np.abs(served - np.asarray(model(examples))).max())
    if not difference <= TOLERANCE:
        raise WorkError(f"the exported ONNX model differs from the Keras model by {difference:.2g} in a probability")
