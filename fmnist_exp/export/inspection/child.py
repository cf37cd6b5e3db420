"""The child process of `inspect`: set its limits, check the files, and print one sentence if they are refused."""

import contextlib
import os
import stat
import sys
import zipfile
from pathlib import Path

from fmnist_exp.errors import WorkError

KERAS_ENTRIES = {"metadata.json", "config.json", "model.weights.h5"}
DESCRIPTORS = 64  # files that may be open at once


def main() -> None:
    """Check the folder that the command line names within its limits; exit with 1 if it is refused."""
    folder, memory, seconds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    _limit(memory, seconds)
    try:
        check(folder)
    except MemoryError:
        _refuse("reading its files takes more memory than their size warrants")
    except WorkError as error:
        _refuse(str(error))
    except Exception as error:  # each reader of a damaged file has errors of its own
        _refuse(f"{type(error).__name__}: {error}")


def check(folder: Path) -> None:
    """Raise WorkError, or whatever a reader raises, unless the files are harmless to load."""
    for file in sorted(folder.rglob("*")):
        if not stat.S_ISDIR(file.lstat().st_mode) and not stat.S_ISREG(file.lstat().st_mode):
            raise WorkError(f"{file.relative_to(folder)} is not a plain file")
    with zipfile.ZipFile(folder / "data" / "model.keras") as archive:
        entries = archive.infolist()
        if sorted(entry.filename for entry in entries) != sorted(KERAS_ENTRIES):
            raise WorkError(f"data/model.keras must contain {', '.join(sorted(KERAS_ENTRIES))} and nothing else")
        if packed := [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]:
            raise WorkError(f"data/model.keras: {packed[0]} is compressed, which Keras does not do")
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = False
    file = folder / "data" / "model.onnx"
    session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    session.run(None, {session.get_inputs()[0].name: np.zeros((1, 28, 28), np.uint8)})


def _limit(memory: int, seconds: int) -> None:
    """Limit what this process may use: bytes of memory, seconds of processor time, files; it can write none.

    Windows has no such limits, so there only the parent's time counts. macOS heeds all but those of memory.
    """
    try:
        import resource
    except ImportError:
        return
    limits = {"DATA": memory, "AS": 4 * memory + 2**30, "CPU": seconds}
    limits |= {"FSIZE": 0, "CORE": 0, "NOFILE": DESCRIPTORS}
    for name, value in limits.items():
        with contextlib.suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))


def _refuse(reason: str) -> None:
    print(" ".join(reason.split())[:300], end="", flush=True)
    os._exit(1)


if __name__ == "__main__":
    main()
