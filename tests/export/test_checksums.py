"""A model's files are verified against what was registered, in the form of today and of earlier releases."""

import hashlib
import json

import pytest

from fmnist_exp.errors import WorkError
from fmnist_exp.export import checksums


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "MLmodel").write_text("a model")
    (tmp_path / "data" / "model.onnx").write_bytes(b"weights")
    return tmp_path


@pytest.fixture(params=["digest of checksums.json", "content of checksums.json"])
def registered(request, folder):
    """The value of the version's tag; earlier releases wrote the whole list into it."""
    text = checksums.to_json(checksums.checksums(folder))
    if request.param.startswith("content"):
        return text
    (folder / checksums.FILE).write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def test_every_file_counts(folder, registered):
    checksums.verify(folder, registered)
    (folder / "data" / "new.py").write_text("")
    with pytest.raises(WorkError, match=r"registered: data/new\.py$"):
        checksums.verify(folder, registered)
    (folder / "data" / "new.py").unlink()
    (folder / "data" / "model.onnx").write_bytes(b"others")
    with pytest.raises(WorkError, match=r"registered: data/model\.onnx$"):
        checksums.verify(folder, registered)
    (folder / "data" / "model.onnx").unlink()
    with pytest.raises(WorkError, match=r"registered: data/model\.onnx$"):
        checksums.verify(folder, registered)


def test_another_list_of_checksums_is_refused(folder):
    listed = folder / checksums.FILE
    listed.write_text(checksums.to_json(checksums.checksums(folder)))
    registered = hashlib.sha256(listed.read_bytes()).hexdigest()
    (folder / "data" / "model.onnx").write_bytes(b"others")
    listed.write_text(checksums.to_json(checksums.checksums(folder)))
    with pytest.raises(WorkError, match=r"registered: checksums\.json$"):
        checksums.verify(folder, registered)
    listed.unlink()
    with pytest.raises(WorkError, match=r"registered: checksums\.json$"):
        checksums.verify(folder, registered)


@pytest.mark.parametrize("name", ["registered_model_meta", "data/registered_model_meta", ".hidden", "data/new.py"])
def test_a_file_of_any_name_counts(folder, registered, name):
    (folder / name).write_text("")
    with pytest.raises(WorkError, match=rf"registered: {name}$"):
        checksums.verify(folder, registered)


def test_links_and_byte_code_are_refused(folder, registered, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    kept = (elsewhere / "model.onnx").write_bytes((folder / "data" / "model.onnx").read_bytes())
    (folder / "data" / "model.onnx").unlink()
    (folder / "data" / "model.onnx").symlink_to(elsewhere / "model.onnx")
    with pytest.raises(WorkError, match=r"^data/model\.onnx is not a plain file$"):
        checksums.verify(folder, registered)
    (folder / "data" / "model.onnx").unlink()
    (folder / "data").rmdir()
    (folder / "data").symlink_to(elsewhere)
    with pytest.raises(WorkError, match=r"^data is not a plain file$"):
        checksums.verify(folder, registered)
    (folder / "data").unlink()
    (folder / "__pycache__").mkdir()
    with pytest.raises(WorkError, match=r"^__pycache__ is byte code"):
        checksums.verify(folder, registered)
    assert kept == 7


@pytest.mark.parametrize(
    "tag",
    [None, "", "{no JSON", "[]", "garbage", "7", '{"MLmodel": 1}', "[" * 100_000, '{"a": "' + "b" * 10**6 + '"}'],
    ids=["none", "empty", "no JSON", "list", "garbage", "number", "no digest", "deep", "huge"],
)
def test_a_version_without_valid_checksums_is_refused(folder, tag):
    with pytest.raises(WorkError, match=r"^it has no valid checksums"):
        checksums.verify(folder, tag)


def test_a_list_that_is_no_list_of_checksums_is_refused(folder):
    (folder / checksums.FILE).write_text("[]")
    with pytest.raises(WorkError, match=r"^it has no valid checksums"):
        checksums.verify(folder, hashlib.sha256(b"[]").hexdigest())


def test_write_returns_the_digest_of_what_it_wrote(folder):
    digest = checksums.write(folder)
    assert digest == hashlib.sha256((folder / checksums.FILE).read_bytes()).hexdigest() == checksums.digest(folder)
    checksums.verify(folder, digest)


def test_the_list_names_the_files(folder):
    assert list(json.loads(checksums.to_json(checksums.checksums(folder)))) == ["MLmodel", "data/model.onnx"]
