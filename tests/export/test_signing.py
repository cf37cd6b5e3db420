"""Keys as openssl writes them sign and verify; every other file is refused in one sentence before anything is done."""

import subprocess

import pytest

from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.export import signing

DIGEST = "ab" * 32


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def keys(tmp_path, monkeypatch):
    """A private key and its public key, as the guide makes them, and another pair."""
    for name in ("own", "other"):
        openssl(tmp_path, "genpkey", "-algorithm", "ed25519", "-out", f"{name}.pem")
        openssl(tmp_path, "pkey", "-in", f"{name}.pem", "-pubout", "-out", f"{name}.pub")
    both = (tmp_path / "own.pub").read_text() + (tmp_path / "other.pub").read_text()
    (tmp_path / "both.pub").write_text(both)
    monkeypatch.setenv(signing.SIGNING_KEY, str(tmp_path / "own.pem"))
    monkeypatch.setenv(signing.TRUSTED_KEYS, str(tmp_path / "own.pub"))
    return tmp_path


def test_without_keys_nothing_is_signed_or_refused(monkeypatch):
    signing.check(own_models=True)
    assert signing.sign("name", DIGEST) == ""
    signing.verify("name", DIGEST, "")
    assert signing.signer() == ""
    assert signing.is_signer("")
    assert not signing.is_signer("00" * 32)


def test_a_signature_fits_one_digest_and_one_name(keys, monkeypatch):
    signing.check(own_models=True)
    signature = signing.sign("name", DIGEST)
    signing.verify("name", DIGEST, signature)
    for name, digest in (("other", DIGEST), ("name", "cd" * 32)):
        with pytest.raises(WorkError, match="its signature is not one of a key in FMNIST_EXP_TRUSTED_KEYS"):
            signing.verify(name, digest, signature)
    monkeypatch.setenv(signing.TRUSTED_KEYS, str(keys / "both.pub"))
    signing.verify("name", DIGEST, signature)
    assert signing.is_signer(signing.signer())


@pytest.mark.parametrize("signature", ["", "garbage", "é", "AAAA", "A" * 100_000])
def test_what_is_no_signature_is_refused(keys, signature):
    with pytest.raises(WorkError, match="not signed" if not signature else "its signature is not one of"):
        signing.verify("name", DIGEST, signature)


def test_a_foreign_key_is_refused(keys, monkeypatch):
    monkeypatch.setenv(signing.SIGNING_KEY, str(keys / "other.pem"))
    with pytest.raises(WorkError, match="its signature is not one of"):
        signing.verify("name", DIGEST, signing.sign("name", DIGEST))
    signing.check()
    with pytest.raises(RequestError, match=r"the models of this command would be refused; set FMNIST_EXP_SIGNING_KEY"):
        signing.check(own_models=True)
    monkeypatch.delenv(signing.SIGNING_KEY)
    with pytest.raises(RequestError, match=r"the models of this command would be refused"):
        signing.check(own_models=True)


def test_only_the_driver_s_key_is_its_signer(keys, monkeypatch):
    driver = signing.signer()
    monkeypatch.setenv(signing.SIGNING_KEY, str(keys / "other.pem"))
    assert not signing.is_signer(driver)
    monkeypatch.delenv(signing.SIGNING_KEY)
    assert not signing.is_signer(driver)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "cannot be read: No such file"),
        ("folder", "cannot be read: Is a directory"),
        ("garbage", "is not a key in PEM format"),
        ("empty", "is not a key in PEM format"),
        ("encrypted", "is encrypted"),
        ("rsa", "is not an Ed25519 key"),
        ("public", "is not a key in PEM format"),
    ],
)
def test_a_file_that_is_no_signing_key_is_refused(keys, monkeypatch, kind, reason):
    file = keys / kind
    if kind == "folder":
        file.mkdir()
    elif kind == "encrypted":
        openssl(keys, "pkey", "-in", "own.pem", "-aes256", "-passout", "pass:secret", "-out", kind)
    elif kind == "rsa":
        openssl(keys, "genpkey", "-algorithm", "RSA", "-out", kind)
    elif kind != "missing":
        file.write_bytes({"garbage": b"\0garbage", "empty": b"", "public": (keys / "own.pub").read_bytes()}[kind])
    monkeypatch.setenv(signing.SIGNING_KEY, str(file))
    with pytest.raises(RequestError, match=f"^FMNIST_EXP_SIGNING_KEY={file} {reason}"):
        signing.check()


@pytest.mark.parametrize("kind", ["missing", "private", "rsa", "mixed", "cut"])
def test_a_file_without_trusted_keys_is_refused(keys, monkeypatch, kind):
    file = keys / kind
    own = (keys / "own.pub").read_bytes()
    if kind in ("rsa", "mixed"):
        openssl(keys, "genpkey", "-algorithm", "RSA", "-out", "rsa.pem")
        openssl(keys, "pkey", "-in", "rsa.pem", "-pubout", "-out", "rsa.pub")
        file.write_bytes((own if kind == "mixed" else b"") + (keys / "rsa.pub").read_bytes())
    elif kind == "private":
        file.write_bytes((keys / "own.pem").read_bytes())
    elif kind == "cut":
        file.write_bytes(own.replace(b"MCow", b"MC!w"))
    monkeypatch.setenv(signing.TRUSTED_KEYS, str(file))
    with pytest.raises(RequestError, match=f"^FMNIST_EXP_TRUSTED_KEYS={file} "):
        signing.check()
