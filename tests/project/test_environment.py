"""Tests of the set-up: one list of requirements, entry points that exist, and no machine's names in the files."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from pip._internal.models.index import PyPI, TestPyPI

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ENTRY_POINTS = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
SUPPORTED_PYTHONS = ["3.11", "3.12", "3.13"]


def locked(file: str) -> dict[str, list[tuple[Requirement, int]]]:
    """Return the pins by name (several if they differ by marker), each with its number of hashes."""
    pins: dict[str, list[tuple[Requirement, int]]] = {}
    for entry in (ROOT / file).read_text().replace("\\\n", " ").splitlines():
        text, *hashes = entry.split("--hash=sha256:")
        pins.setdefault(canonicalize_name(Requirement(text).name), []).append((Requirement(text), len(hashes)))
    return pins


APART = "requirements-lcbench.txt"  # for an environment of its own, with an older NumPy
LOCKS = {file: locked(file) for file in ("requirements.txt", "requirements-dev.txt", "requirements-bench.txt", APART)}


def declared() -> list[tuple[str, str]]:
    runtime = [("requirements.txt", text) for text in PYPROJECT["project"]["dependencies"]]
    groups = PYPROJECT["dependency-groups"].items()
    return runtime + [(f"requirements-{group}.txt", text) for group, texts in groups for text in texts]


@pytest.mark.parametrize(("file", "text"), declared())
def test_lock_satisfies_what_pyproject_declares(file: str, text: str) -> None:
    requirement = Requirement(text)
    pins = LOCKS[file].get(canonicalize_name(requirement.name), [])
    assert pins, f"{file} does not pin {requirement.name}: run `make lock`"
    for pin, _ in pins:
        (version,) = (specifier.version for specifier in pin.specifier)
        assert requirement.specifier.contains(version), f"{file} has {pin}, pyproject.toml asks for {requirement}"


@pytest.mark.parametrize("file", LOCKS)
def test_every_line_of_the_lock_is_one_version_with_hashes(file: str) -> None:
    for pins in LOCKS[file].values():
        for pin, hashes in pins:
            assert [specifier.operator for specifier in pin.specifier] == ["=="], pin
            assert hashes, f"{pin} has no hash"


def test_the_locks_agree() -> None:
    runtime, *others = (lock for file, lock in LOCKS.items() if file != APART)
    shared = [(name, lock[name]) for lock in others for name in runtime.keys() & lock.keys()]
    for name, pins in shared:
        assert {str(pin) for pin, _ in pins} <= {str(pin) for pin, _ in runtime[name]}


def test_mlflow_and_conda_install_the_lock_and_nothing_else() -> None:
    assert yaml.safe_load((ROOT / "python_env.yaml").read_text()) == {"dependencies": ["-r requirements.txt"]}
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text())
    python, pip, from_pip = conda["dependencies"]
    assert pip == "pip"
    assert from_pip == {"pip": ["-r requirements.txt"]}
    assert python == f"python{PYPROJECT['project']['requires-python']}"


def test_supported_pythons() -> None:
    supported = SpecifierSet(PYPROJECT["project"]["requires-python"])
    assert [f"3.{minor}" for minor in range(30) if f"3.{minor}" in supported] == SUPPORTED_PYTHONS


@pytest.mark.parametrize("minor", [10, 11, 12, 13, 14])
def test_make_refuses_other_pythons(minor: int, tmp_path: Path) -> None:
    """The stand-in for another Python says its version, and cannot create an environment."""
    python = tmp_path / "python"
    version = f"import sys; sys.version_info = (3, {minor})"
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} -c "{version}\n$2"\nexit 1\n')
    python.chmod(0o755)
    for file in ("Makefile", "pyproject.toml", "requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / file, tmp_path)
    done = subprocess.run(["make", "lint", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert ("not a working Python" in done.stderr) == (f"3.{minor}" not in SUPPORTED_PYTHONS)


def test_mlproject_uses_python_env() -> None:
    mlproject = yaml.safe_load((ROOT / "MLproject").read_text())
    assert {key: value for key, value in mlproject.items() if key != "entry_points"} == {
        "name": "fmnist_exp",
        "python_env": "python_env.yaml",
    }


def test_every_entry_point_is_a_command() -> None:
    from fmnist_exp.cli import main

    assert ENTRY_POINTS.keys() <= main.commands.keys()


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_entry_point_passes_its_parameters_to_its_command(name: str) -> None:
    parameters = ENTRY_POINTS[name].get("parameters", {})
    # `experiment` names the file to run, `run_id` the run to repeat; any other default is in the schema only
    assert parameters.keys() <= {"experiment", "run_id"}
    options = ["--experiment", "{experiment}"] if "experiment" in parameters else []
    options += ["{run_id}"] if "run_id" in parameters else []
    assert shlex.split(ENTRY_POINTS[name]["command"]) == ["python", "-m", "fmnist_exp", name, *options]


def test_readme_installs_the_locked_mlflow() -> None:
    """A newer MLflow upgrades the tables of the embedded store, and the locked one could then no longer read them."""
    (pin, _), *_ = LOCKS["requirements.txt"]["mlflow"]
    named = set(re.findall(r"mlflow==[\w.]+", (ROOT / "README.md").read_text()))
    assert named == {str(pin)}


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_tracked_file_names_a_registry_or_a_machine() -> None:
    hosts = [host for index in (PyPI, TestPyPI) for host in (urlsplit(index.url).hostname, index.file_storage_domain)]
    assert all(hosts)
    folders = [folder for folder in (Path.home(), ROOT) if folder != Path("/")]
    trace = re.compile(
        "|".join(
            [re.escape(host) for host in hosts if host] + [rf"(?<![\w.]){re.escape(f'{path}/')}" for path in folders]
        )
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}"
        for path in tracked_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if (match := trace.search(line))
    ]
    assert not found, found
