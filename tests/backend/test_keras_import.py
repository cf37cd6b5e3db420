"""The import of Keras, and the library that it is not to find."""

import importlib
import subprocess
import sys

import pytest

from fmnist_exp.backend import loading


def test_a_hidden_library_is_missing_until_the_block_ends(tmp_path, monkeypatch):
    (tmp_path / "fmnist_exp_hidden.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with loading.hidden("fmnist_exp_hidden"), pytest.raises(ImportError):
        importlib.import_module("fmnist_exp_hidden")
    assert importlib.import_module("fmnist_exp_hidden").__name__ == "fmnist_exp_hidden"
    with loading.hidden("fmnist_exp_hidden"):  # which would tear an imported library apart
        assert "fmnist_exp_hidden" in sys.modules
        importlib.import_module("fmnist_exp_hidden")
    monkeypatch.delitem(sys.modules, "fmnist_exp_hidden")


@pytest.mark.parametrize(("backend", "is_imported"), [("tensorflow", False), ("jax", True)])
def test_jax_is_imported_with_keras_only_where_it_is_the_backend(monkeypatch, backend, is_imported):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    code = "import sys; from fmnist_exp.backend import loading; loading.load_keras(); print('jax' in sys.modules)"
    code += "; import jax; print(jax.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(is_imported), "jax"]
