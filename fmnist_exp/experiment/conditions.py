"""The conditions under which a process computes: with the experiment and the images, they determine every number."""

import functools
import hashlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from fmnist_exp.backend import hardware, setup
from fmnist_exp.export import requirements
from fmnist_exp.tracking.names import Tag

PACKAGE = Path(__file__).parents[1]
NAMES = {  # what a difference is called
    Tag.THREADS: "number of threads",
    Tag.PROCESSOR: "processor",
    Tag.BACKEND: "backend",
    Tag.LIBRARIES: "set of library versions",
    Tag.CODE: "code of fmnist_exp",
}


def current() -> dict[str, str]:
    """Return the tags that describe the conditions of this process."""
    return {
        Tag.THREADS: str(setup.threads()),
        Tag.PROCESSOR: _processor(),
        Tag.BACKEND: f"{setup.version()}, Python {sys.version_info.major}.{sys.version_info.minor}",
        Tag.LIBRARIES: _libraries(),
        Tag.CODE: code_digest(),
        Tag.DIRTY: _dirty(),
    }


def differences(tags: Mapping[str, str], others: Mapping[str, str]) -> list[str]:
    """Return a phrase for each condition that differs between the tags of a run and the conditions `others`."""
    return [
        f"its {name} was {tags.get(tag, 'not recorded')}, not {others.get(tag, 'recorded')}"
        for tag, name in NAMES.items()
        if tags.get(tag) != others.get(tag)
    ]


def _processor() -> str:
    """Return the processor, and the GPU if the backend has one."""
    gpu = hardware.gpu()
    return hardware.processor().description + (f", with the GPU {gpu.name}" if gpu else "")


@functools.cache
def code_digest() -> str:
    """Return a digest of the package's modules, which is equal on workers that have the same code."""
    content = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        content.update(str(path.relative_to(PACKAGE)).encode() + path.read_bytes())
    return content.hexdigest()[:12]


def weights_digest(weights: Sequence[NDArray[np.generic]]) -> str:
    """Return a digest of a network's weights, which is equal only if all bits are."""
    content = hashlib.sha256()
    for array in weights:
        content.update(f"{array.shape} {array.dtype}".encode() + array.tobytes())
    return content.hexdigest()[:16]


@functools.cache
def _libraries() -> str:
    """Return a digest of the versions of the libraries that compute, and of all that these require."""
    listed = requirements.locked((str(keras.backend.backend()), "keras", "numpy"))
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()[:12]


@functools.cache
def _dirty() -> str:
    """Return whether modules of the package were changed since the last commit; `unknown` outside a Git repository."""
    command = ["git", "-C", str(PACKAGE), "status", "--porcelain", "--untracked-files=normal", "--", "."]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return "unknown" if done.returncode else str(bool(done.stdout.strip())).lower()
