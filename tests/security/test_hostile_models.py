"""Registered and logged models that were made to run code, or changed: every entry point that loads models is tried.

An attacker of the registry registers a model by hand, with checksums that fit. An attacker of the artifact store
changes files of a model that was registered before. No code may run, and each refusal is one sentence.
"""

import hashlib
import json
import os
import pickle
import py_compile
import shutil
import subprocess
from functools import partial
from pathlib import Path

import keras
import mlflow
import pytest
import tensorflow as tf
import yaml

from fmnist_exp import cli, models
from fmnist_exp.cli import serve
from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig, GateConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.errors import WorkError
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.experiment.resolve import resolve
from fmnist_exp.export import checksums, packaging, signing
from fmnist_exp.registry import evaluate, gate, lineage, versions
from fmnist_exp.tracking import models as logged_models
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store

CONFIG = files.override(ExperimentConfig(), {"name": "tiny", "model.family": "mlp", "model.widths": [32]})
LOADERS = "serve, evaluate, promote, promote --force, warm start, ensemble, scoring of a run"


class Victim:
    """A store, and what the attacker's code would write."""

    def __init__(self, base, canary, data, small):
        self.client = store.connect()
        self.base, self.canary = base, canary
        self.data = data
        self.few = FashionMNIST(data.train, data.validation, small.test, data.source)

    def model(self, change=None, tampering=None):
        """Register a model by hand: `change` comes before its checksums are taken, `tampering` afterwards."""
        with runs.closing(runs.start_run(self.client, "train", "hostile", "hostile")) as run:
            runs.log_start(run, CONFIG, self.data)
            logged = self.client.create_logged_model(run.experiment_id, "model", run.id, model_type="keras")
            folder = Path(logged.artifact_location.removeprefix("file://"))
            shutil.copytree(self.base, folder)
            if change:
                change(folder, self.canary)
            digest = self.take_checksums(folder)
            self.client.set_logged_model_tags(logged.model_id, {"fmnist.sha256": digest})
            self.client.finalize_logged_model(logged.model_id, "READY")
            run.log_output_model(logged.model_id)
        if not self.client.search_registered_models():
            self.client.create_registered_model(versions.NAME)
        source = f"models:/{logged.model_id}"
        tags = {"sha256": digest}
        version = self.client.create_model_version(versions.NAME, source, run.id, tags=tags, model_id=logged.model_id)
        if tampering:
            tampering(folder, self.canary)
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
    def __init__(self, victim, version, run_id, model_id, folder):
        self.victim, self.version, self.run_id, self.model_id = victim, version, run_id, model_id
        self.folder = folder
        self.uri = f"models:/{versions.NAME}/{version.version}"

    def fresh(self):
        return versions.find(self.victim.client, str(self.version.version))


@pytest.fixture(scope="module")
def victim(registered, shared_store, tmp_path_factory, data, small):
    folder = tmp_path_factory.mktemp("hostile")
    base = shutil.copytree(registered.files, folder / "base", ignore=shutil.ignore_patterns("__pycache__"))
    (base / "registered_model_meta").unlink(missing_ok=True)
    return Victim(base, folder / "canary", data, small)


# what the attackers do


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


REGISTRY = {  # attack → what the sentence says
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


@pytest.fixture(scope="module")
def made(victim):
    """Make each hostile model once."""
    known = {}

    def make(attack):
        if attack not in known:
            how = {"change": attack} if attack in REGISTRY or attack not in STORE else {"tampering": attack}
            known[attack] = victim.model(**how)
        return known[attack]

    return make


# the entry points


def try_promote(hostile, force=False):
    client = hostile.victim.client
    pairing = gate.NoChampion(hostile.fresh(), hostile.victim.data.validation.images[:20])
    with runs.closing(runs.start_run(client, "evaluate", "promote", "")) as run:
        verdict = gate.decide(pairing, run, GateConfig(), force=force)
    if not verdict.promoted:
        raise WorkError(verdict.sentence)
    return verdict


def try_evaluate(hostile):
    subject = lineage.trace(hostile.victim.client, hostile.fresh())
    evaluate.assess(subject, hostile.victim.few, 0, temperature=False, status=lambda text: None)


def try_warm_start(hostile):
    config = files.override(CONFIG, {"model.warm_start": f"runs:/{hostile.run_id}"})
    resolve(config, hostile.victim.data, hostile.victim.client)


def try_ensemble(hostile):
    config = files.override(CONFIG, {"model.members": [hostile.uri, f"runs:/{hostile.run_id}"]})
    experiment_run._build(config, runs.Run(hostile.victim.client, hostile.run_id))


def try_score(hostile):
    client = hostile.victim.client
    with runs.closing(runs.start_run(client, "tune", "parent", "")) as parent:
        run = runs.Run(client, hostile.run_id)
        experiment_run.score_winner(run, parent, hostile.model_id, hostile.victim.few)


ENTRIES = {
    "serve": lambda hostile: serve.load(hostile.uri),
    "evaluate": try_evaluate,
    "promote": try_promote,
    "force": lambda hostile: try_promote(hostile, force=True),
    "warm start": try_warm_start,
    "ensemble": try_ensemble,
    "score": try_score,
}


def honest(folder, canary):
    """Change nothing."""


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_honest_model_passes(entry, made):
    ENTRIES[entry](made(honest))


@pytest.mark.attack("a hostile model", entry=LOADERS)
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("attack", [*REGISTRY, *STORE], ids=lambda attack: attack.__name__)
def test_it_is_refused_and_no_code_runs(attack, entry, made, victim):
    hostile = made(attack)
    with pytest.raises(WorkError) as refusal:
        ENTRIES[entry](hostile)
    sentence = str(refusal.value)
    assert {**REGISTRY, **STORE}[attack] in sentence
    assert "cannot be loaded: " in sentence
    assert "\n" not in sentence
    assert not victim.canary.exists()
    assert versions.aliases(victim.client) == {}


@pytest.mark.attack(
    "a SavedModel", entry="tf.saved_model.load", result="it is one that writes a file when it is loaded"
)
def test_the_saved_model_is_dangerous(made, victim):
    """Loaded as MLflow loads it, the sample does run code, so the tests above are worth something."""
    folder = made(saved_model).folder
    tf.saved_model.load(str(folder / "data" / "model"))
    assert victim.canary.exists()
    victim.canary.unlink()


def changed_code(folder, canary):
    (folder / "code" / "fmnist_exp" / "__init__.py").write_text(code_for(canary))


@pytest.mark.attack("changed code beside a model", entry=LOADERS, result="not run; a reason against promotion")
@pytest.mark.parametrize("entry", ENTRIES)
def test_copied_code_is_not_run(entry, made, victim):
    hostile = made(changed_code)
    if entry == "promote":
        with pytest.raises(WorkError, match=r"no release of fmnist-exp wrote its code/fmnist_exp/__init__\.py"):
            ENTRIES[entry](hostile)
    else:
        verdict = ENTRIES[entry](hostile)
        if entry == "force":
            assert verdict.sentence.startswith("forced, although no release of fmnist-exp wrote its code/")
            assert verdict.smoke == "answered"
    assert not victim.canary.exists()


def unscored(folder, canary):
    """Change nothing: this model is not scored, because a model that was scored is not loaded again for it."""


@pytest.mark.attack("a tag that lists no checksums", entry=LOADERS)
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("tag", ["[]", "garbage", "{}"])
def test_a_tag_without_checksums_vouches_for_nothing(tag, entry, made, victim):
    hostile = made(unscored)
    digest = hostile.version.tags["sha256"]
    number = hostile.version.version
    victim.client.set_model_version_tag(versions.NAME, number, "sha256", tag)
    victim.client.set_logged_model_tags(hostile.model_id, {"fmnist.sha256": tag})
    try:
        with pytest.raises(WorkError, match=r"no valid checksums|not those that were registered: MLmodel"):
            ENTRIES[entry](hostile)
    finally:
        victim.client.set_model_version_tag(versions.NAME, number, "sha256", digest)
        victim.client.set_logged_model_tags(hostile.model_id, {"fmnist.sha256": digest})


def test_what_mlflow_leaves_beside_a_model_does_no_harm(made):
    """MLflow loads a model of a local store in place, and Python leaves byte code there."""
    hostile = made(honest)
    cached = hostile.folder / "code" / "fmnist_exp" / "serving" / "__pycache__"
    py_compile.compile(
        str(hostile.folder / "code" / "fmnist_exp" / "serving" / "predictor.py"),
        str(cached / "predictor.cpython-311.pyc"),
        invalidation_mode=py_compile.PycInvalidationMode.TIMESTAMP,
    )
    mlflow.artifacts.download_artifacts(hostile.uri)
    assert (hostile.folder / "registered_model_meta").is_file()
    serve.load(hostile.uri)


COMMANDS = {
    "serve": ["serve", "--port", "0", "--model", "{uri}"],
    "evaluate": ["evaluate", "--model", "{uri}"],
    "promote": ["promote", "--version", "{number}"],
    "promote --force": ["promote", "--version", "{number}", "--force"],
    "ensemble": ["ensemble", "--members", "{uri},runs:/{run}"],
    "train": ["train", "--experiment", "mlp", "--model.warm_start", "runs:/{run}"],
    "tune": ["tune", "--experiment", "tune_mlp", "--model.warm_start", "runs:/{run}"],
}


@pytest.mark.attack("a rogue loader", entry="each command")
@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_refuses_in_one_sentence(command, made, victim, capfd):
    hostile = made(rogue_loader)
    names = {"uri": hostile.uri, "number": hostile.version.version, "run": hostile.run_id}
    with pytest.raises(SystemExit) as end:
        cli.run([argument.format(**names) for argument in COMMANDS[command]])
    captured = capfd.readouterr()
    assert end.value.code == cli.WORK_FAILED, captured.err
    sentences = [line for line in captured.err.splitlines() if line.startswith("fmnist-exp: ")]
    assert len(sentences) == 1
    assert "cannot be loaded: it has the file code/evil_loader.py" in sentences[0]
    assert "Traceback" not in captured.err
    assert not victim.canary.exists()
    assert versions.aliases(victim.client) == {}
    assert victim.client.search_runs(["0"], "attributes.status = 'RUNNING'") == []


@pytest.fixture
def keys(tmp_path, monkeypatch):
    """The keys of an owner, who is trusted, and of somebody else."""
    for name in ("owner", "other"):
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", f"{name}.pem"], cwd=tmp_path, check=True)
    public = ["openssl", "pkey", "-in", "owner.pem", "-pubout", "-out", "trusted.pem"]
    subprocess.run(public, cwd=tmp_path, check=True)
    monkeypatch.setenv(signing.TRUSTED_KEYS, str(tmp_path / "trusted.pem"))
    return tmp_path


def set_signatures(hostile, version_signature, model_signature):
    client, number = hostile.victim.client, hostile.version.version
    client.set_model_version_tag(versions.NAME, number, "signature", version_signature)
    client.set_logged_model_tags(hostile.model_id, {"fmnist.signature": model_signature})


@pytest.mark.attack("a model without the owner's signature", entry=LOADERS)
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("kind", ["unsigned", "foreign key", "other name"])
def test_only_signed_models_are_loaded(kind, entry, made, keys, monkeypatch):
    hostile = made(unscored)
    digest = hostile.version.tags["sha256"]
    monkeypatch.setenv(signing.SIGNING_KEY, str(keys / ("other.pem" if kind == "foreign key" else "owner.pem")))
    names = ("x", "y") if kind == "other name" else (versions.NAME, hostile.model_id)
    set_signatures(hostile, *("" if kind == "unsigned" else signing.sign(name, digest) for name in names))
    with pytest.raises(WorkError, match=r"it is not signed, and|its signature is not one of a key in"):
        ENTRIES[entry](hostile)


@pytest.mark.parametrize("entry", ["serve", "evaluate", "warm start", "ensemble"])
def test_models_with_the_owner_s_signature_are_loaded(entry, made, keys, monkeypatch):
    hostile = made(unscored)
    digest = hostile.version.tags["sha256"]
    monkeypatch.setenv(signing.SIGNING_KEY, str(keys / "owner.pem"))
    set_signatures(hostile, signing.sign(versions.NAME, digest), signing.sign(hostile.model_id, digest))
    ENTRIES[entry](hostile)


def test_registration_signs_and_unsigned_versions_can_be_signed(victim, keys, monkeypatch):
    images = victim.data.validation.images[:2]
    monkeypatch.setenv(signing.SIGNING_KEY, str(keys / "owner.pem"))
    with runs.closing(runs.start_run(victim.client, "train", "signed", "")) as run:
        model = models.build(CONFIG.model)
        model_id = logged_models.log(run, partial(packaging.save, model=model, examples=images), {})
    version = versions.register(victim.client, model_id, run.id, {})
    victim.client.delete_registered_model_alias(versions.NAME, versions.CHALLENGER)
    number = str(version.version)
    with versions.opened(victim.client, versions.find(victim.client, number)) as copy:
        assert signing.sign(versions.NAME, checksums.digest(copy.folder)) == version.tags["signature"]
    victim.client.delete_model_version_tag(versions.NAME, number, "signature")
    with (
        pytest.raises(WorkError, match="not signed"),
        versions.opened(victim.client, versions.find(victim.client, number)),
    ):
        pass
    monkeypatch.delenv(signing.TRUSTED_KEYS)
    versions.sign(victim.client, number)
    assert versions.find(victim.client, number).tags["signature"] == version.tags["signature"]


@pytest.mark.attack("a key file that is none", entry="train, tune, evaluate, promote, serve")
@pytest.mark.parametrize(
    "command",
    [
        ["train", "--experiment", "mlp"],
        ["tune", "--experiment", "tune_mlp"],
        ["evaluate", "--model", "models:/fashion-mnist/1"],
        ["promote", "--version", "1"],
        ["serve", "--port", "0", "--model", "models:/fashion-mnist/1"],
    ],
    ids=lambda command: command[0],
)
def test_a_wrong_key_file_is_refused_before_any_work(command, victim, tmp_path, monkeypatch, capfd):
    count = len(victim.client.search_runs(["0"]))
    monkeypatch.setenv(signing.SIGNING_KEY, str(tmp_path / "missing.pem"))
    with pytest.raises(SystemExit) as end:
        cli.run(command)
    assert end.value.code == cli.WRONG_REQUEST
    sentence = capfd.readouterr().err
    assert sentence.startswith("fmnist-exp: FMNIST_EXP_SIGNING_KEY=")
    assert "cannot be read: No such file or directory" in sentence
    assert len(victim.client.search_runs(["0"])) == count
