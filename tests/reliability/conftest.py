"""Fixtures of the faults: real processes of the command line, a real MLflow server, and a line to it that fails."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import services, stable
from support.stable import Stable

from benchmarks.line import Line


@pytest.fixture(scope="session")
def tracking_server(tmp_path_factory, new_database) -> Iterator[str]:
    """The address of an MLflow server with an empty database, which keeps artifacts in its folder."""
    folder = tmp_path_factory.mktemp("tracking")
    database = new_database(folder, "mlflow-artifacts:/0")
    with services.mlflow_server(folder, database, "127.0.0.1", services.free_port()) as address:
        yield address


@pytest.fixture
def line(tracking_server, tmp_path, monkeypatch) -> Iterator[Line]:
    """A line to the server, for a test in a folder of its own."""
    with Line(tracking_server) as made:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", made.url)
        yield made


@pytest.fixture(scope="session")
def model(registered, tmp_path_factory) -> Path:
    """The files of a small network as they stand in a spool."""
    ignored = shutil.ignore_patterns("__pycache__", "registered_model_meta", "checksums.json")
    return Path(shutil.copytree(registered.files, tmp_path_factory.mktemp("model") / "model", ignore=ignored))


@pytest.fixture(scope="session")
def commands(tmp_path_factory, no_settings_of_the_user) -> Iterator[Stable]:
    """Start real processes of the command line, which take milliseconds to start."""
    with stable.opened(tmp_path_factory.mktemp("commands")) as opened:
        yield opened


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, folder) -> Path:
    """Write an experiment of one epoch of a small network on a few hundred images, with a search."""
    file = tmp_path_factory.mktemp("tiny") / "tiny.yaml"
    file.write_text(
        f"""
name: tiny
model: {{family: mlp, widths: [8]}}
training: {{epochs: 1, batch_size: 50, steps_per_execution: 1, precision: float32}}
data: {{source: {folder}, validation_fraction: 0.2}}
search:
  space: {{training.learning_rate: {{low: 0.001, high: 0.01, log: true}}}}
  n_trials: 2
  startup_trials: 2
  pruner: none
"""
    )
    return file
