"""A model's folder with two faces: `mlflow.keras.load_model` and a fast `mlflow.pyfunc.load_model` on ONNX Runtime."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from fmnist_exp import compat, serving
from fmnist_exp.backend import setup
from fmnist_exp.data.formats import CLASS_NAMES
from fmnist_exp.errors import WorkError
from fmnist_exp.export import onnx as onnx_export
from fmnist_exp.export import requirements
from fmnist_exp.export.checksums import checksums as checksums
from fmnist_exp.serving import predictor

if TYPE_CHECKING:
    import keras
    from mlflow.models import Model

# mlflow-skinny is MLflow without its tracking server; its scoring server, a client and FastAPI are in it
SERVING_PACKAGES = ("mlflow-skinny", "numpy", "onnxruntime", "pandas")
FILE_TYPES = {".keras", ".onnx", ".txt", ".json", ".yaml", ".py"}  # none that runs code when it is read
UNSAFE_LAYERS = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}  # these carry or call code
TOLERANCE = 1e-4  # of a probability, between Keras and ONNX Runtime

EXPORT = """
import sys
from fmnist_exp.backend import setup
setup.start()
import keras
from fmnist_exp.export import onnx
onnx.export(keras.saving.load_model(sys.argv[1], compile=False), sys.argv[2])
"""


def save(folder: Path, metadata: Model, model: keras.Model, examples: NDArray[np.uint8]) -> None:
    """Write `model` to `folder` as an MLflow model, and compare its two faces on `examples`.

    Args:
        folder: must not exist yet.
        metadata: MLflow's description of the model, completed and written here.
        model: float32, stock Keras layers only; uint8 images (batch, 28, 28) to probabilities (batch, 10).
        examples: real images (N, 28, 28); the first becomes the input example.

    Raises:
        WorkError: ONNX Runtime and Keras disagree by more than 1e-4, or a layer is not one of Keras' own.
    """
    import mlflow

    folder.mkdir()
    mlflow.keras.save_model(
        model,
        str(folder),
        mlflow_model=metadata,
        signature=_signature(),
        input_example=examples[:1],
        pip_requirements=list(requirements.locked(SERVING_PACKAGES)),
    )
    if setup.on_tensorflow():
        onnx_export.export(model, folder / "data" / "model.onnx")
    else:
        _export_in_another_process(folder / "data")
    (folder / "data" / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n", encoding="utf-8")
    _copy_code(folder / "code")
    _loosen_python(folder / "python_env.yaml")
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
    check_safe(folder)
    _compare(folder, model, examples)


def check_safe(folder: Path) -> None:
    """Refuse a model's folder with a file that could run code when it is loaded, or a layer that is not stock Keras.

    Raises:
        WorkError: names the file or the layer.
    """
    for name in checksums(folder):
        if Path(name).suffix not in FILE_TYPES and name != "MLmodel":
            raise WorkError(f"the model has a file of a kind that is not loaded: {name}")
    with zipfile.ZipFile(folder / "data" / "model.keras") as archive:
        _check_layers(json.loads(archive.read("config.json")))


def _check_layers(config: Any) -> None:
    """Walk through the configuration that Keras saved."""
    if isinstance(config, list):
        for part in config:
            _check_layers(part)
    elif isinstance(config, dict):
        name = config.get("class_name")
        if "module" in config and name is not None:
            stock = str(config["module"]).split(".")[0] in ("keras", "builtins")
            foreign = not stock or config.get("registered_name") not in (None, name)
            if foreign or name in UNSAFE_LAYERS or name == "__lambda__":
                raise WorkError(
                    f"the model uses {name}, which is not a stock Keras layer; it could not be loaded safely"
                )
        for part in config.values():
            _check_layers(part)


def _loosen_python(file: Path) -> None:
    """Ask for the minor version of Python only: MLflow writes the patch, which another machine may not have."""
    environment = yaml.safe_load(file.read_text(encoding="utf-8"))
    environment["python"] = ".".join(str(environment["python"]).split(".")[:2])
    file.write_text(yaml.safe_dump(environment, sort_keys=False), encoding="utf-8")


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema, TensorSpec

    columns: list[ColSpec | TensorSpec] = [ColSpec(DataType.long, "label"), ColSpec(DataType.string, "name")]
    columns.append(ColSpec(DataType.float, "probability"))
    columns += [ColSpec(DataType.float, f"p{label}") for label in range(len(CLASS_NAMES))]
    signature = ModelSignature(Schema([TensorSpec(np.dtype(np.uint8), (-1, 28, 28))]), Schema(columns))
    # The predictor checks its input itself: MLflow's own check would refuse float images.
    compat.accept_any_input(signature)
    return signature


def _export_in_another_process(folder: Path) -> None:
    """From model.keras to model.onnx on TensorFlow: Keras' exporters for its other backends need more libraries.

    Raises:
        WorkError: what the process said last.
    """
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", EXPORT, str(folder / "model.keras"), str(folder / "model.onnx")],
        env={**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise WorkError(f"the model was not exported to ONNX, which takes TensorFlow whatever Keras runs on: {last}")


def _copy_code(folder: Path) -> None:
    """The predictor as a package of the same name, so that the model loads where ours is not installed."""
    package = folder / Path(*serving.__name__.split("."))
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    for module in (serving, predictor):
        shutil.copy(str(module.__file__), package)


def _compare(folder: Path, model: keras.Model, examples: NDArray[np.uint8]) -> None:
    served = predictor.load(folder / "data").probabilities(examples)
    difference = float(np.abs(served - np.asarray(model(examples))).max())
    if not difference <= TOLERANCE:
        raise WorkError(f"the exported ONNX model differs from the Keras model by {difference:.2g} in a probability")
