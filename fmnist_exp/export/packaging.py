"""Save a Keras model as an MLflow model that loads with Keras and, without Keras, predicts on ONNX Runtime."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import mlflow
import numpy as np
import yaml
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from numpy.typing import NDArray

from fmnist_exp import compat, serving
from fmnist_exp.backend import setup
from fmnist_exp.data.formats import CLASS_NAMES
from fmnist_exp.errors import WorkError
from fmnist_exp.export import layout, requirements, signing
from fmnist_exp.serving import predictor

# mlflow-skinny is MLflow without its tracking server; it contains the scoring server, a client and FastAPI
SERVING_PACKAGES = ("mlflow-skinny", "numpy", "onnxruntime", "pandas")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"  # another machine may not have the same patch
WEIGHTS = (layout.KERAS_MODEL, layout.ONNX_MODEL)  # the files of a model's folder with weights
TOLERANCE = 1e-4  # largest difference of a probability between Keras and ONNX Runtime

EXPORT = """
import sys
from fmnist_exp.backend import setup
setup.start()
import keras
from fmnist_exp.export import onnx
onnx.export(keras.saving.load_model(sys.argv[1], compile=False), sys.argv[2])
"""


def save(folder: Path, metadata: Model, model: keras.Model, examples: NDArray[np.uint8]) -> str:
    """Write `model` to `folder` as an MLflow model with two flavors, compare both, and return who must sign it.

    `mlflow.keras.load_model` returns the Keras model, `mlflow.pyfunc.load_model` the predictor on ONNX Runtime. The ids
    of model and run, checksums and signature are added by `completion.complete`.

    Args:
        folder: a folder that does not exist yet.
        metadata: MLflow's description of the model, which is completed and written.
        model: a float32 model of stock Keras layers, from uint8 images (B, 28, 28) to probabilities (B, 10).
        examples: real images (N, 28, 28), on which both flavors must agree; the first one becomes the input example.

    Returns:
        The public key, in hexadecimal, of the key that signs models here, or an empty text without a signing key.

    Raises:
        WorkError: ONNX Runtime and Keras disagree by more than 1e-4, or a layer is not a stock Keras layer.
    """
    folder.mkdir()
    described = {"mlflow_model": metadata, "signature": _signature(), "input_example": examples[:1]}
    mlflow.keras.save_model(model, str(folder), conda_env=_conda_environment(), **described)
    _export_to_onnx(model, folder / "data")
    (folder / "data" / "classes.txt").write_text("\n".join(CLASS_NAMES) + "\n", encoding="utf-8")
    _copy_code(folder / "code")
    _loosen_python(folder / "python_env.yaml")
    environments = {"conda_env": "conda.yaml", "python_env": "python_env.yaml"}
    mlflow.pyfunc.add_to_model(metadata, loader_module=predictor.__name__, data="data", code="code", **environments)
    metadata.model_size_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    metadata.save(str(folder / "MLmodel"))
    layout.check(folder)
    layout.check_network(folder)
    _compare(folder, model, examples)
    return signing.public_key()


def save_checkpoint(folder: Path, metadata: Model, model: keras.Model) -> str:
    """Write `model` to `folder` as an MLflow model that only Keras loads, and return who must sign it.

    This takes about a tenth of the time of `save`, with the same arguments and result.
    """
    folder.mkdir()
    packages = "mlflow-skinny", str(keras.backend.backend()), "keras", "numpy"
    mlflow.keras.save_model(model, str(folder), conda_env=_conda_environment(packages), mlflow_model=metadata)
    _loosen_python(folder / "python_env.yaml")
    return signing.public_key()


def _conda_environment(packages: tuple[str, ...] = SERVING_PACKAGES) -> dict[str, object]:
    """Return the model's conda environment, from which MLflow derives all requirement files.

    If MLflow gets only requirements, it looks for the version of pip, and warns if uv made the environment without it.
    """
    pip = {"pip": list(requirements.locked(packages))}
    return {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": [f"python={PYTHON}", "pip", pip]}


def _loosen_python(file: Path) -> None:
    """Replace the exact version of Python, which MLflow writes, by the minor version."""
    environment = yaml.safe_load(file.read_text(encoding="utf-8")) | {"python": PYTHON}
    file.write_text(yaml.safe_dump(environment, sort_keys=False), encoding="utf-8")


def _signature() -> ModelSignature:
    columns: list[ColSpec | TensorSpec] = [ColSpec(DataType.long, "label"), ColSpec(DataType.string, "name")]
    columns.append(ColSpec(DataType.float, "probability"))
    columns += [ColSpec(DataType.float, f"p{label}") for label in range(len(CLASS_NAMES))]
    signature = ModelSignature(Schema([TensorSpec(np.dtype(np.uint8), (-1, 28, 28))]), Schema(columns))
    compat.accept_any_input(signature)  # the predictor checks its input itself; MLflow would reject float images
    return signature


def _export_to_onnx(model: keras.Model, folder: Path) -> None:
    """Write model.onnx beside model.keras, on TensorFlow: Keras' exporters for JAX need further libraries."""
    if setup.on_tensorflow():
        from fmnist_exp.export import onnx  # late: it imports TensorFlow, which users of JAX need not have

        onnx.export(model, folder / "model.onnx")
        return
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", EXPORT, str(folder / "model.keras"), str(folder / "model.onnx")],
        env={**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise WorkError(f"the export to ONNX failed; it needs TensorFlow, whatever Keras runs on: {last}")


def _copy_code(folder: Path) -> None:
    """Copy the predictor as a package of the same name, so that the model loads where this package is not installed."""
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
