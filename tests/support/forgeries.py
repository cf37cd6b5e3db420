"""Forged models: a registry with models that run code, or were changed, in every way that a test tries.

A forgery that changes a model before its checksums are taken is the work of an attacker of the registry, who registers
a model by hand. One that changes it afterwards is the work of an attacker of the artifact store.
"""

import hashlib
import json
import os
import pickle
import py_compile
import shutil
from pathlib import Path

import keras
import tensorflow as tf
import yaml

from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.registry import versions
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store

CONFIG = files.override(ExperimentConfig(), {"name": "tiny", "model.family": "mlp", "model.widths": [32]})


class Victim:
    """A store for forged models, and the file that the attacker's code would write."""

    def __init__(self, base, canary, data, small):
        self.client = store.connect()
        self.base, self.canary = base, canary
        self.data = data
        self.few = FashionMNIST(data.train, data.validation, small.test, data.source)

    def forge(self, forgery):
        """Register a model by hand. It is changed before its checksums are taken, or afterwards if STORE says so."""
        with runs.closing(runs.start_run(self.client, "train", "hostile", "hostile")) as run:
            runs.log_start(run, CONFIG, self.data)
            logged = self.client.create_logged_model(run.experiment_id, "model", run.id, model_type="keras")
            folder = Path(logged.artifact_location.removeprefix("file://"))
            shutil.copytree(self.base, folder)
            if forgery not in STORE:
                forgery(folder, self.canary)
            digest = self.take_checksums(folder)
            self.client.set_logged_model_tags(logged.model_id, {"fmnist.sha256": digest})
            self.client.finalize_logged_model(logged.model_id, "READY")
            run.log_output_model(logged.model_id)
        if not self.client.search_registered_models():
            self.client.create_registered_model(versions.NAME)
        source = f"models:/{logged.model_id}"
        tags = {"sha256": digest}
        version = self.client.create_model_version(versions.NAME, source, run.id, tags=tags, model_id=logged.model_id)
        if forgery in STORE:
            forgery(folder, self.canary)
        return Hostile(self, version, run.id, logged.model_id, folder)

    def take_checksums(self, folder):
        found = {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*")
            if path.is_file() and path.name != "checksums.json"
        }
        text = json.dumps(found)
        (folder / "checksums.json").write_text(text)
        return hashlib.sha256(text.encode()).hexdigest()


class Hostile:
    """A registered version whose model is forged."""

    def __init__(self, victim, version, run_id, model_id, folder):
        self.victim, self.version, self.run_id, self.model_id = victim, version, run_id, model_id
        self.folder = folder
        self.uri = f"models:/{versions.NAME}/{version.version}"

    def fresh(self):
        return versions.find(self.victim.client, str(self.version.version))


def code_for(canary):
    return f"import pathlib\npathlib.Path({str(canary)!r}).write_text('code ran')\n"


def describe(folder, change):
    found = yaml.safe_load((folder / "MLmodel").read_text())
    change(found["flavors"])
    (folder / "MLmodel").write_text(yaml.safe_dump(found))


def rogue_loader(folder, canary):
    (folder / "code" / "evil_loader.py").write_text(code_for(canary))
    describe(folder, lambda flavors: flavors["python_function"].update(loader_module="evil_loader"))


def rogue_loader_alone(folder, canary):
    describe(folder, lambda flavors: flavors["python_function"].update(loader_module="antigravity"))


def saved_model(folder, canary):
    class Writer(tf.saved_model.experimental.TrackableResource):
        def _create_resource(self):
            return tf.raw_ops.VarHandleOp(shape=[], dtype=tf.float32, shared_name="writer")

        def _initialize(self):
            tf.io.write_file(str(canary), "code ran")

    module = tf.Module()
    module.writer = Writer()
    module.serve = tf.function(lambda: module.writer.resource_handle is None, input_signature=[])
    tf.saved_model.save(module, str(folder / "data" / "model"))
    canary.unlink(missing_ok=True)  # it is written when the resource is made, too
    describe(folder, lambda flavors: flavors["keras"].update(save_exported_model=True))


class Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (os.system, (f"touch {self.canary}",))


def pickle_flavor(folder, canary):
    (folder / "model.pkl").write_bytes(pickle.dumps(Payload(canary)))
    sklearn = {"pickled_model": "model.pkl", "serialization_format": "pickle", "sklearn_version": "1.8.0"}
    describe(folder, lambda flavors: flavors.update(sklearn=sklearn))
    describe(folder, lambda flavors: flavors["python_function"].update(loader_module="mlflow.sklearn"))


def lambda_layer(folder, canary):
    path = str(canary)
    layer = keras.layers.Lambda(lambda x: (open(path, "w").close(), x)[1], output_shape=(28, 28))
    layers = [keras.Input((28, 28), dtype="uint8"), layer, keras.layers.Flatten(), keras.layers.Dense(10)]
    keras.Sequential(layers).save(folder / "data" / "model.keras")
    canary.unlink(missing_ok=True)


def h5_file(folder, canary):
    keras.Sequential([keras.Input((28, 28)), keras.layers.Flatten()]).save_weights(folder / "data" / "model.weights.h5")


def byte_code(folder, canary):
    source = folder.parent / "evil.py"
    source.write_text(code_for(canary))
    cached = folder / "code" / "fmnist_exp" / "__pycache__"
    cached.mkdir()
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(source), str(cached / "__init__.cpython-311.pyc"), invalidation_mode=mode)


def linked_folder(folder, canary):
    shutil.move(folder / "data", folder.parent / "moved")
    (folder / "data").symlink_to(folder.parent / "moved")


def linked_file(folder, canary):
    shutil.move(folder / "data" / "model.onnx", folder.parent / "model.onnx")
    (folder / "data" / "model.onnx").symlink_to(folder.parent / "model.onnx")


def metadata_inside(folder, canary):
    (folder / "data" / "registered_model_meta").write_text("model_name: x\n")


def changed_byte(folder, canary):
    file = folder / "data" / "model.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut_weights(folder, canary):
    file = folder / "data" / "model.keras"
    file.write_bytes(file.read_bytes()[:2000])


def damaged_export(folder, canary):
    (folder / "data" / "model.onnx").write_bytes(b"no ONNX")


def missing_weights(folder, canary):
    (folder / "data" / "model.onnx").unlink()
    (folder / "data" / "model.keras").unlink()


def pipe(folder, canary):
    (folder / "data" / "classes.txt").unlink()
    os.mkfifo(folder / "data" / "classes.txt")


def changed_code(folder, canary):
    (folder / "code" / "fmnist_exp" / "__init__.py").write_text(code_for(canary))


def honest(folder, canary):
    """Change nothing."""


def unscored(folder, canary):
    """Change nothing: this model is not scored, because a model that was scored is not loaded again for it."""


# forgery → part of the sentence that refuses it
REGISTRY = {
    rogue_loader: "it has the file code/evil_loader.py",
    rogue_loader_alone: "its file MLmodel is not as fmnist-exp writes it: loader_module",
    saved_model: "it has the folder data/model",
    pickle_flavor: "it has the file model.pkl",
    lambda_layer: "it uses Lambda, which is not a stock Keras layer",
    h5_file: "it has the file data/model.weights.h5",
    damaged_export: "cannot be loaded: ",
    cut_weights: "not a zip file",
}
STORE = {
    byte_code: "is byte code that Python would run without checking its source",
    linked_folder: "data is not a plain file",
    linked_file: "data/model.onnx is not a plain file",
    metadata_inside: "it has the file data/registered_model_meta",
    changed_byte: "not those that were registered: data/model.onnx",
    missing_weights: "it has no file data/model.keras",
    pipe: "data/classes.txt is not a plain file",
}
