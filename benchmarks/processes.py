"""The processes that benchmarks start: the repository's root, and an environment with a tracking store of its own."""

import os
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def python(module: str, *arguments: object) -> list[str]:
    """Return the command that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *map(str, arguments)]


def options(fields: dict[str, object]) -> list[str]:
    """Return dotted fields as command-line options."""
    return [word for name, value in fields.items() for word in (f"--{name}", str(value))]


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a process that works in any folder and tracks its runs in `folder`."""
    path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "KERAS_"))}
    return {**inherited, "PYTHONPATH": path, "MLFLOW_TRACKING_URI": store(folder), "TF_CPP_MIN_LOG_LEVEL": "3"}


def store(folder: Path) -> str:
    """Return the address of the tracking store in `folder`."""
    return f"sqlite:///{folder}/mlflow.db"
