"""The child process of `inspect`: set its limits, check the files, and print one sentence if they are refused."""

import contextlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from fmnist_exp.errors import WorkError
from fmnist_exp.export.inspection import archives, graphs, texts

DESCRIPTORS = 64  # files that may be open at once
FILES = 100  # in a model's folder; `packaging.save` writes 15
FILE_BYTES = 2**20  # of a text file; an input example has 10 KiB
NAMES, KERAS, ONNX = "data/classes.txt", "data/model.keras", "data/model.onnx"
NO_MEMORY = "bad_alloc", "Arena alloc failed"  # in the errors of ONNX Runtime and of protobuf
YAML_FILES = "MLmodel", "registered_model_meta"  # the files in YAML whose names do not say so


def main() -> None:
    """Check the folder that the command line names, within limits; if it is refused, print why and exit with 1."""
    folder, memory, seconds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    _limit(memory, seconds)
    try:
        check(folder)
    except Exception as error:  # each reader of a damaged file has errors of its own
        _end(str(error) or type(error).__name__)
    _end("")


def check(folder: Path) -> None:
    """Raise WorkError unless the files of a model's folder are harmless to load."""
    for name in _files(folder):
        with _about(name):
            _check_text(folder / name)
    with _about(NAMES):
        classes = texts.check_names((folder / NAMES).read_bytes())
    with _about(KERAS):
        archives.check(folder / KERAS)
    with _about(ONNX):
        graphs.check(folder / ONNX, classes)
        graphs.run(folder / ONNX)


def _files(folder: Path) -> list[str]:
    """Return the paths of the text files in the folder. Raises WorkError for links, devices and too many files."""
    found = [(path.relative_to(folder).as_posix(), path.lstat().st_mode) for path in sorted(folder.rglob("*"))]
    names = [name for name, mode in found if not stat.S_ISDIR(mode)]
    for name, mode in found:
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise WorkError(f"{name[:100]!r} is neither a file nor a folder")
    if len(found) > FILES:
        raise WorkError(f"the model has {len(found):,} files and folders, and at most {FILES} are read")
    if missing := {NAMES, KERAS, ONNX} - set(names):
        raise WorkError(f"the model has no file {min(missing)}")
    return [name for name in names if name not in (KERAS, ONNX)]


def _check_text(file: Path) -> None:
    if (size := file.stat().st_size) > FILE_BYTES:
        raise WorkError(f"it has {size:,} bytes, and at most {FILE_BYTES:,} are read")
    if file.suffix == ".json":
        texts.check_json(file.read_bytes())
    elif file.suffix in (".yaml", ".yml") or file.name in YAML_FILES:
        texts.check_yaml(file.read_bytes())


@contextlib.contextmanager
def _about(name: str) -> Iterator[None]:
    """Turn any error in the block into a WorkError that names the file."""
    try:
        yield
    except Exception as error:
        reason = str(error) or type(error).__name__
        if isinstance(error, MemoryError) or any(words in reason for words in NO_MEMORY):
            reason = "reading it takes more memory than the model's size warrants"
        raise WorkError(f"{name}: {reason}") from error


def _limit(memory: int, seconds: int) -> None:
    """Limit what this process may use: bytes of memory, seconds of processor time, open files. It can write no file.

    Windows has no such limits: there the checks of the headers and the time that the parent waits must do. macOS does
    not enforce the limits of memory.
    """
    try:
        import resource
    except ImportError:
        return
    # the address space also holds what is mapped but never used, such as libraries
    limits = {"DATA": memory, "AS": memory + 2**30, "CPU": seconds, "FSIZE": 0, "CORE": 0, "NOFILE": DESCRIPTORS}
    for name, value in limits.items():
        with contextlib.suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def _end(reason: str) -> None:
    """End this process at once: a library's clean-up after a damaged file may fail as well."""
    print(" ".join(reason.split())[:300], end="", flush=True)
    os._exit(1 if reason else 0)


if __name__ == "__main__":
    main()
