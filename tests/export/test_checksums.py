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
    (folder / "registered_model_meta").write_text("MLflow writes it")
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


@pytest.mark.parametrize("tag", [None, "", "{no JSON"])
def test_a_version_without_checksums_is_refused(folder, tag):
    with pytest.raises(WorkError, match="has no checksums"):
        checksums.verify(folder, tag)


def test_the_list_names_the_files(folder):
    assert list(json.loads(checksums.to_json(checksums.checksums(folder)))) == ["MLmodel", "data/model.onnx"]
