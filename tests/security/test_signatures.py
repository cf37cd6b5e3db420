"""Models without the owner's signature are refused wherever models are loaded, if the owner's keys are set."""

import subprocess
from functools import partial

import pytest
from support.forgeries import CONFIG, unscored
from support.loaders import ALL, ENTRIES

from fmnist_exp import cli, models
from fmnist_exp.errors import WorkError
from fmnist_exp.export import checksums, packaging, signing
from fmnist_exp.registry import versions
from fmnist_exp.tracking import models as logged_models
from fmnist_exp.tracking import run as runs


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


@pytest.mark.attack("a model without the owner's signature", entry=ALL)
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
