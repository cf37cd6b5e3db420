"""A built wheel has everything that the package reads, and works where there is no repository."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = sorted(path.name for path in (ROOT / "experiments").glob("*.yaml"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The folder into which a wheel of the repository is unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def fmnist_exp(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fmnist_exp", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_a_wheel_has_every_file_of_the_package(installed):
    assert sorted(path.name for path in (installed / "fmnist_exp/experiments").iterdir()) == SHIPPED
    own = (path.relative_to(ROOT) for path in (ROOT / "fmnist_exp").rglob("*") if path.is_file())
    assert [str(path) for path in own if path.suffix != ".pyc" and not (installed / path).is_file()] == []


def test_the_shipped_experiments_are_found_without_the_repository(installed, tmp_path):
    code = """
from fmnist_exp.config import files
print(files.EXPERIMENTS, *(files.load(path.stem).name for path in files.EXPERIMENTS.glob("*.yaml")))
"""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    folder, *names = done.stdout.split()
    assert Path(folder) == installed / "fmnist_exp/experiments"
    assert sorted(f"{name}.yaml" for name in names) == SHIPPED


def test_an_installed_command_offers_the_shipped_experiments(installed, tmp_path):
    done = fmnist_exp(installed, tmp_path, "train", "--experiment", "nothing")
    assert done.returncode == 2
    assert ", ".join(name.removesuffix(".yaml") for name in SHIPPED) in done.stderr
    assert fmnist_exp(installed, tmp_path, "tune", "--help").returncode == 0
    assert list(tmp_path.iterdir()) == []
