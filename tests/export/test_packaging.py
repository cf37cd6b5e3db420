"""A model's folder: both faces answer alike, and the fast one needs neither Keras nor this project."""

import hashlib
import importlib.metadata
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.models import Model

from fmnist_exp import models
from fmnist_exp.backend import inference, seeds
from fmnist_exp.config.schema import ModelConfig
from fmnist_exp.data.formats import CLASS_NAMES
from fmnist_exp.errors import WorkError
from fmnist_exp.export import packaging


@pytest.fixture(scope="module")
def model(small):
    seeds.prepare(0, "float32")
    model = models.build(ModelConfig(family="mlp", widths=(8,), batch_norm=True, dropout=0.2))
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model, small) -> Path:
    folder = tmp_path_factory.mktemp("packaging") / "model"
    packaging.save(folder, Model(), model, small.validation.images[:64])
    return folder


@pytest.fixture(scope="module")
def served(folder):
    return mlflow.pyfunc.load_model(str(folder))


def test_keras_face(folder, model, small):
    images = small.test.images[:50]
    loaded = mlflow.keras.load_model(str(folder))
    assert np.array_equal(inference.predict(loaded, images), inference.predict(model, images))


def test_served_face_gives_the_documented_table(served, model, small):
    images = small.test.images[:50]
    table = served.predict(images)
    assert list(table.columns) == ["label", "name", "probability", *(f"p{i}" for i in range(10))]
    expected = inference.predict(model, images)
    assert np.abs(table[[f"p{i}" for i in range(10)]].to_numpy() - expected).max() < 1e-5
    assert list(table["label"]) == list(expected.argmax(axis=1))
    assert list(table["name"]) == [CLASS_NAMES[label] for label in table["label"]]
    assert list(table["probability"]) == list(table[[f"p{i}" for i in range(10)]].max(axis=1))
    assert [str(kind) for kind in table.dtypes[["label", "probability", "p0"]]] == ["int64", "float32", "float32"]


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images.astype(np.float32),
        lambda images: np.clip(images - 0.25, 0, 255),
        lambda images: images.astype(np.int64),
        lambda images: images[..., np.newaxis],
        lambda images: images.tolist(),
    ],
    ids=["float32", "float64", "int64", "(N, 28, 28, 1)", "lists"],
)
def test_served_face_takes_other_forms_of_the_same_images(served, small, change):
    images = small.test.images[:5]
    pd.testing.assert_frame_equal(served.predict(change(images)), served.predict(images))


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (np.zeros((28, 28), np.uint8), "shape"),
        (np.zeros((0, 28, 28), np.uint8), "at least 1"),
        (np.zeros((1, 28, 27), np.uint8), "shape"),
        (np.zeros((1, 28, 28, 3), np.uint8), "shape"),
        (np.full((1, 28, 28), np.nan), "finite"),
        (np.full((1, 28, 28), np.inf), "finite"),
        (np.full((1, 28, 28), 256), "0…255"),
        (np.full((1, 28, 28), -1.0), "0…255"),
        (np.full((1, 28, 28), 0.5), "multiply them by 255"),
        (np.full((1, 28, 28), "a"), "numbers"),
    ],
)
def test_served_face_refuses_what_is_no_image(served, images, reason):
    with pytest.raises(ValueError, match=reason):
        served.predict(images)


def test_served_face_needs_neither_keras_nor_this_project(folder, served, small, tmp_path):
    np.save(tmp_path / "images.npy", small.test.images[:5])
    code = f"""
import sys
import mlflow, numpy as np
model = mlflow.pyfunc.load_model({str(folder)!r})
print(list(model.predict(np.load("images.npy"))["label"]))
print([name for name in ("keras", "tensorflow", "optuna", "matplotlib") if name in sys.modules])
import fmnist_exp
print(fmnist_exp.__file__)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    labels, heavy, package = done.stdout.splitlines()
    assert labels == str(list(served.predict(small.test.images[:5])["label"]))
    assert heavy == "[]"
    assert Path(package) == folder / "code" / "fmnist_exp" / "__init__.py"


def test_metadata(folder):
    found = yaml.safe_load((folder / "MLmodel").read_text())
    assert set(found["flavors"]) == {"keras", "python_function"}
    (entry,) = json.loads(found["signature"]["inputs"])
    assert entry == {"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, 28, 28]}}
    outputs = json.loads(found["signature"]["outputs"])
    assert [column["name"] for column in outputs] == ["label", "name", "probability", *(f"p{i}" for i in range(10))]
    # an import of the copied code by another test leaves byte code beside it; the checksums are written last
    files = [f for f in folder.rglob("*") if f.is_file() and f.suffix != ".pyc" and f.name != "checksums.json"]
    total = sum(f.stat().st_size for f in files)
    assert found["model_size_bytes"] == pytest.approx(total, abs=500)  # MLmodel itself is written after


def test_input_example_is_a_real_image(folder, small):
    metadata = Model.load(str(folder))
    example = np.asarray(metadata.load_input_example(str(folder)))
    assert np.array_equal(example, small.validation.images[:1])


def test_requirements_are_what_serving_needs_and_pinned(folder):
    lines = (folder / "requirements.txt").read_text().splitlines()
    pins = dict(line.partition(";")[0].strip().split("==") for line in lines)
    assert pins.keys() >= set(packaging.SERVING_PACKAGES)
    assert pins == {name: importlib.metadata.version(name) for name in pins}
    assert not {"keras", "tensorflow", "fmnist-exp"} & pins.keys()
    for file in ("conda.yaml", "python_env.yaml"):
        assert (folder / file).is_file()


def test_an_environment_without_pip_causes_no_warning(tmp_path, model, small, caplog, monkeypatch):
    """An environment that uv makes has no pip, which MLflow looks for to write it into conda.yaml."""

    def hides_pip(name: str) -> importlib.metadata.Distribution:
        if name == "pip":
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    found = importlib.metadata.distribution
    monkeypatch.setattr(importlib.metadata, "distribution", hides_pip)
    monkeypatch.setattr(logging.getLogger("mlflow"), "propagate", True)
    packaging.save(tmp_path / "model", Model(), model, small.validation.images[:64])
    assert caplog.messages == []
    environment = yaml.safe_load((tmp_path / "model" / "conda.yaml").read_text())
    assert environment["dependencies"][:2] == [f"python={packaging.PYTHON}", "pip"]


def test_the_copied_code_is_this_code(folder):
    copied = folder / "code" / "fmnist_exp" / "serving" / "predictor.py"
    mine = Path(packaging.predictor.__file__)
    assert hashlib.sha256(copied.read_bytes()).digest() == hashlib.sha256(mine.read_bytes()).digest()


def test_faces_that_disagree_are_refused(folder, small, tmp_path):
    seeds.prepare(1, "float32")
    other = models.build(ModelConfig(family="mlp", widths=(8,)))
    shutil.copytree(folder, tmp_path / "model")
    with pytest.raises(WorkError, match="the exported ONNX model differs from the Keras model by 0"):
        packaging._compare(tmp_path / "model", other, small.validation.images[:64])
