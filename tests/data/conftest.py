"""A cache of its own for each test that reads images from files."""

from pathlib import Path

import pytest


@pytest.fixture
def own_cache(tmp_path, monkeypatch) -> Path:
    """Keep what is read in the test's folder, and not in the cache of this machine."""
    monkeypatch.setenv("FMNIST_EXP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
