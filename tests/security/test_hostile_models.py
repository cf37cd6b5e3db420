"""Registered and logged models that were made to run code, or changed: every entry point that loads models is tried.

No code may run, and each refusal is one sentence.
"""

import py_compile

import mlflow
import pytest
import tensorflow as tf
from support.forgeries import REGISTRY, STORE, changed_code, honest, rogue_loader, saved_model, unscored
from support.loaders import ALL, ENTRIES

from fmnist_exp import cli
from fmnist_exp.cli import serve
from fmnist_exp.errors import WorkError
from fmnist_exp.registry import versions


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_honest_model_passes(entry, made):
    ENTRIES[entry](made(honest))


@pytest.mark.attack("a hostile model", entry=ALL)
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


@pytest.mark.attack("changed code beside a model", entry=ALL, result="not run; a reason against promotion")
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


@pytest.mark.attack("a tag that lists no checksums", entry=ALL)
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
