"""A model's folder is accepted if it has what `packaging.save` writes, and nothing else."""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import keras
import pytest
import yaml

from fmnist_exp import models
from fmnist_exp.config.schema import ModelConfig
from fmnist_exp.errors import WorkError
from fmnist_exp.export import layout


@pytest.fixture
def folder(registered, tmp_path):
    copy = shutil.copytree(registered.files, tmp_path / "model")
    for left in copy.rglob("__pycache__"):  # where another test let MLflow load it in place
        shutil.rmtree(left)
    (copy / "registered_model_meta").unlink(missing_ok=True)
    return copy


@pytest.mark.parametrize("with_checksums", [True, False])
def test_what_this_and_earlier_releases_wrote_is_accepted(folder, with_checksums):
    if not with_checksums:
        (folder / "checksums.json").unlink()
    layout.check(folder)
    layout.check_network(folder)
    assert layout.foreign_code(folder) == []


@pytest.mark.parametrize(
    "name",
    [
        *("data/model.pkl", "data/custom_objects.cloudpickle", "data/model.so", "run", "data/model.h5"),
        *("code/fmnist_exp/evil.py", "data/model/saved_model.pb", "registered_model_meta", "python_model.pkl"),
    ],
)
def test_another_file_is_refused(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    with pytest.raises(WorkError, match=f"^it has the file {name}, which fmnist-exp does not write$"):
        layout.check(folder)


@pytest.mark.parametrize("name", sorted(layout.FILES - layout.OPTIONAL))
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(WorkError, match=f"^it has no file {name}$"):
        layout.check(folder)


def edit(folder, change):
    file = folder / "MLmodel"
    found = yaml.safe_load(file.read_text())
    change(found)
    file.write_text(yaml.safe_dump(found))


def bomb(levels=40):
    """A list of lists that is small as YAML, with references, and has more elements than there are atoms."""
    part = ["x"] * 9
    for _ in range(levels):
        part = [part] * 9
    return part


CHANGES = {
    "loader_module": lambda model: model["flavors"]["python_function"].update(loader_module="evil"),
    "code": lambda model: model["flavors"]["python_function"].update(code="data"),
    "data": lambda model: model["flavors"]["keras"].update(data="/etc"),
    "save_exported_model": lambda model: model["flavors"]["keras"].update(save_exported_model=True),
    "env": lambda model: model["flavors"]["python_function"].update(env=bomb()),
    "keras_version": lambda model: model["flavors"]["keras"].update(keras_version=bomb()),
    "python_version": lambda model: model["flavors"]["python_function"].pop("python_version"),
    "config": lambda model: model["flavors"]["python_function"].update(config={"a": 1}),
    "sklearn": lambda model: model["flavors"].update(sklearn={"pickled_model": "model.pkl"}),
    "keras": lambda model: model["flavors"].pop("keras"),
    "resources": lambda model: model.update(resources={"api": 1}),
    "signature": lambda model: model.update(signature=bomb()),
}


@pytest.mark.parametrize("field", CHANGES)
def test_another_description_is_refused(folder, field):
    edit(folder, CHANGES[field])
    with pytest.raises(WorkError, match=rf"^its file MLmodel (is not as fmnist-exp .*{field}|.*has an alias)"):
        layout.check(folder)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "describes no model"),
        ("flavors: []", "describes no model"),
        ("{", "is not valid YAML"),
        ("\0", "is not valid YAML"),
        ("[" * 5000, "cannot be read: lists and mappings are nested"),
        ("!!python/object/apply:os.system [true]", "is not valid YAML"),
        ("a: " + "b" * 2**16, "has more than 65,536 bytes"),
    ],
    ids=["empty", "list", "cut", "zero", "deep", "object", "long"],
)
def test_a_description_that_is_none_is_refused(folder, text, reason):
    (folder / "MLmodel").write_text(text)
    with pytest.raises(WorkError, match=f"its file MLmodel {reason}"):
        layout.check(folder)


@pytest.mark.parametrize("family", models.FAMILIES)
def test_every_family_is_stock_keras(folder, family):
    config = ModelConfig(family=family)
    if family == "cnn":
        config = ModelConfig(family=family, residual=True, averaging="flip_shift")  # no Sequential
    models.build(config).save(folder / "data" / "model.keras")
    layout.check_network(folder)


def test_layers_that_carry_code_are_refused(folder):
    @keras.saving.register_keras_serializable("ours")
    class Ours(keras.layers.Layer):
        def call(self, inputs):
            return inputs

    for layer, name in ((keras.layers.Lambda(lambda x: x), "Lambda"), (Ours(), "Ours")):
        keras.Sequential([keras.Input((28, 28)), layer]).save(folder / "data" / "model.keras")
        with pytest.raises(WorkError, match=f"^it uses {name}, which is not a stock Keras layer"):
            layout.check_network(folder)


PARTS = {
    "TFSMLayer": {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "evil"}},
    "StringLookup": {"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}},
    "function": {"module": "os", "class_name": "function", "config": "system", "registered_name": "function"},
    "__lambda__": {"class_name": "__lambda__", "config": {"value": "x"}},
    "enable_unsafe_deserialization": {
        "module": "keras.config",
        "class_name": "enable_unsafe_deserialization",
        "config": {},
    },
    "Popen": {"module": "subprocess", "class_name": "Popen", "config": {"args": "true"}},
    "Dense": {"module": "keras.layers", "class_name": "Dense", "config": {}, "registered_name": "evil>Dense"},
    "Old": {"class_name": "Old", "config": {}},
    "__typespec__": {"module": "keras.layers", "class_name": "__typespec__", "config": []},
}


def write_config(folder, text):
    with zipfile.ZipFile(folder / "data" / "model.keras", "w") as archive:
        archive.writestr("config.json", text)


@pytest.mark.parametrize("name", PARTS)
def test_a_configuration_that_names_something_else_is_refused(folder, name):
    part = PARTS[name]
    write_config(folder, json.dumps({"module": "keras", "class_name": "Sequential", "config": {"layers": [part]}}))
    with pytest.raises(WorkError, match=f"^it uses {name}, which is not a stock Keras layer"):
        layout.check_network(folder)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
def test_a_configuration_that_is_none_is_refused(folder, text):
    write_config(folder, text)
    with pytest.raises(WorkError, match=r"^its file data/model\.keras is damaged$"):
        layout.check_network(folder)


def test_a_file_that_is_no_archive_is_refused(folder):
    file = folder / "data" / "model.keras"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(WorkError, match=r"^its file data/model\.keras is damaged$"):
        layout.check_network(folder)


@pytest.mark.parametrize("name", layout.CODE)
def test_changed_code_is_foreign(folder, name):
    (folder / name).write_text("import os\n")
    assert layout.foreign_code(folder) == [name]
    layout.check(folder)  # it loads, since the code is not run


def test_the_copies_of_this_release_are_recorded():
    """If this fails, append the module's new digest to code.sha256, so that later releases recognise its copy."""
    recorded = {tuple(line.split()) for line in layout.RECORDED.read_text(encoding="utf-8").splitlines()}
    for path in ("fmnist_exp/serving/__init__.py", "fmnist_exp/serving/predictor.py"):
        content = (Path(layout.__file__).parents[2] / path).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), path) in recorded
