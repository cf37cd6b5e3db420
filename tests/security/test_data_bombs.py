"""Files of images, experiments and states that would take gigabytes to read are refused in one sentence."""

import contextlib
import gzip
import http.server
import json
import os
import struct
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support import bombs

from fmnist_exp.data import cache, formats, sources
from fmnist_exp.data.formats import CSV_HEADER, DamagedFileError, Parsed, SourceError
from fmnist_exp.errors import RequestError
from fmnist_exp.tracking import store as tracking_store
from fmnist_exp.training import state as states

MEMORY = 256  # MiB
SECONDS = 5  # of processor time, of which imports take one or two
# each reads the path in sys.argv as commands do, in a process of its own, and raises RequestError
READ_IMAGES = "from fmnist_exp.data import dataset; from fmnist_exp.config.schema import DataConfig as D;"
READ_IMAGES += " dataset.load(D(source=sys.argv[1]), seed=0)"
READ_EXPERIMENT = "from fmnist_exp.config import files; files.load(sys.argv[1])"
MEASURED = """
import json, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_CPU, ({seconds}, {seconds}))
error = None
try:
    {read}
except Exception as raised:
    error = f"{{type(raised).__name__}}: {{raised}}"
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else ["VmHWM: 0 kB"]
print(json.dumps([error, next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10]))
"""


def refusal(read: str, path: Path) -> str:
    """Return the error of a reader, after checking that it is one sentence and came within the limits."""
    code = MEASURED.format(read=read, seconds=SECONDS)
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-500:]}"
    error, memory = json.loads(done.stdout)
    assert error, "it was accepted"
    assert error.startswith("RequestError: ")  # exit code 2
    assert "\n" not in error
    assert len(error) < 500
    assert memory < MEMORY
    return error


def idx(*dimensions: int) -> bytes:
    return struct.pack(f">HBB{len(dimensions)}I", 0, 8, len(dimensions), *dimensions)


def unpacks_to_4_gib(file: Path) -> None:
    start = zlib_part(idx(60_000, 28, 28) if "images" in file.name else idx(60_000))
    file.write_bytes(b"\x1f\x8b\x08" + bytes(6) + b"\xff" + start + bombs.zeros_deflated(4 * bombs.GIB) + bytes(8))


def zlib_part(content: bytes) -> bytes:
    """Return a stored block of a deflated stream, which others may follow."""
    return b"\0" + struct.pack("<HH", len(content), len(content) ^ 0xFFFF) + content


def large_dimensions(file: Path) -> None:
    file.write_bytes(gzip.compress(idx(2**32 - 1, 2**32 - 1, 2**32 - 1)))


def hole(file: Path) -> None:
    file.write_bytes(idx(60_000, 28, 28))
    os.truncate(file, 8 * bombs.GIB)


@pytest.mark.attack("images that unpack to gigabytes", entry="data.source", result="refused, exit code 2")
@pytest.mark.parametrize("make", [unpacks_to_4_gib, large_dimensions, hole])
def test_files_of_images(make, tmp_path):
    for file in formats.IDX_FILES.values():
        make(tmp_path / f"{file.name}.gz")
    assert "data.source" in refusal(READ_IMAGES, tmp_path)


def one_line(file: Path) -> None:
    file.write_text(",".join(CSV_HEADER) + "\n")
    os.truncate(file, 4 * bombs.GIB)


def long_header(file: Path) -> None:
    file.touch()
    os.truncate(file, 4 * bombs.GIB)


@pytest.mark.attack("a CSV file with a line of 4 GiB", entry="data.source", result="refused, exit code 2")
@pytest.mark.parametrize("make", [one_line, long_header])
def test_csv_files(make, tmp_path):
    for name in formats.CSV_FILES.values():
        make(tmp_path / name)
    assert "expected 785 values" in refusal(READ_IMAGES, tmp_path)


EXPERIMENTS = {
    "aliases of aliases": bombs.laughs(),
    "an alias of itself": "model: &a [*a]",
    "50,000 lists": "model: " + "[" * 50_000,
    "many aliases of a long list": f"a: &a [{'x, ' * 10_000}]\nmodel: [{'*a, ' * 10_000}]",
    "300,000 characters": "# " + "x" * 300_000,
    "a number of 50,000 digits": f"seed: {'9' * 50_000}",
}


@pytest.mark.attack("a bomb in an experiment file", entry="--experiment FILE", result="refused, exit code 2")
@pytest.mark.parametrize("text", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_experiment_files(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text)
    refusal(READ_EXPERIMENT, tmp_path / "mine.yaml")


@pytest.mark.attack("4 GiB of experiment.yaml", entry="--experiment FILE", result="refused, exit code 2")
def test_a_hole_as_an_experiment(tmp_path):
    (tmp_path / "mine.yaml").touch()
    os.truncate(tmp_path / "mine.yaml", 4 * bombs.GIB)
    refusal(READ_EXPERIMENT, tmp_path / "mine.yaml")


@pytest.mark.attack("4 GiB of experiment.yaml", entry="runs:/…/experiment.yaml, --resume", result="refused")
def test_a_large_experiment_of_a_run(store, tmp_path):
    client = tracking_store.connect()
    run = client.create_run("0")
    file = tmp_path / "experiment.yaml"
    file.write_bytes(b" " * (tracking_store.TEXT_BYTES + 1))
    client.log_artifact(run.info.run_id, str(file))
    with pytest.raises(RequestError, match="and at most 1,048,576 are read"):
        tracking_store.download_text(f"runs:/{run.info.run_id}/experiment.yaml")


def npy(shape: tuple[int, ...], content: bytes = b"", kind: str = "|u1") -> bytes:
    """Return an npy file whose header gives any shape and type."""
    text = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape!r}, }}\n".encode()
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(text)) + text + content


def write_npz(file: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)


NPZ = {
    "2^40 values": lambda file: write_npz(file, {"notes": npy((2**40,))}),
    "fewer bytes than the shape needs": lambda file: write_npz(file, {"notes": npy((6 * 2**30,), bytes(100))}),
    "a negative shape": lambda file: write_npz(file, {"notes": npy((-5, -20), bytes(100))}),
    "1 GiB of zeros, deflated": lambda file: write_npz(
        file, {"notes": npy((2**20,), bytes(2**20))}, zipfile.ZIP_DEFLATED
    ),
    "pickled objects": lambda file: np.savez(file, allow_pickle=True, notes=np.array([{}], object)),
    "no npy file": lambda file: write_npz(file, {"notes": b"\x93NUMPY\x09\0" + bytes(100)}),
}


@pytest.mark.attack("a bomb in an npz file", entry="--resume, the cache of images", result="read as damaged")
@pytest.mark.parametrize("name", NPZ)
def test_npz_files(name, tmp_path, monkeypatch):
    NPZ[name](tmp_path / "state.npz")
    with pytest.raises(DamagedFileError, match=r"state\.npz is damaged: "):
        formats.read_arrays(tmp_path / "state.npz")
    assert states.read(tmp_path / "state.npz") is None
    monkeypatch.setenv("FMNIST_EXP_CACHE", str(tmp_path))
    with pytest.raises(SourceError, match="damaged"):
        cache.read_cache("state", "")


@pytest.mark.attack("notes that are none", entry="--resume", result="read as damaged")
@pytest.mark.parametrize(
    "notes", ["[" * 200_000, "{}", "[]", '{"format": 2}', "9" * 5000, '{"format": 2, "epochs": 1}']
)
def test_notes_of_a_state(notes, tmp_path):
    np.savez(tmp_path / "state.npz", notes=np.frombuffer(notes.encode(), np.uint8))
    if notes == "{}":  # without a format, it is the first one
        with pytest.raises(RequestError, match="another version"):
            states.read(tmp_path / "state.npz")
    else:
        assert states.read(tmp_path / "state.npz") is None


@pytest.mark.attack("a cache with other arrays", entry="the cache of images", result="read as damaged")
@pytest.mark.parametrize(
    "field", [{"train_labels": np.zeros(4, np.uint8)}, {"test_images": np.zeros((5, 28, 28))}, {"train_labels": None}]
)
def test_a_cache_with_other_arrays(field, tmp_path, monkeypatch):
    monkeypatch.setenv("FMNIST_EXP_CACHE", str(tmp_path))
    images, labels = np.zeros((5, 28, 28), np.uint8), np.zeros(5, np.uint8)
    right = {"train_images": images, "train_labels": labels, "test_images": images, "test_labels": labels}
    cache.write_cache("mine", "", Parsed(**right, source="here"))
    assert cache.read_cache("mine", "").source == "here"
    wrong = {key: value if value is not None else np.full(5, 10, np.uint8) for key, value in field.items()}
    cache.write_cache("mine", "", Parsed(**right | wrong, source="here"))
    with pytest.raises(SourceError, match="damaged"):
        cache.read_cache("mine", "")


class Endless(http.server.BaseHTTPRequestHandler):
    """A server that sends more than the file has: 64 MiB, if it is let."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(1024):
            self.wfile.write(bytes(2**16))

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            super().handle()


@pytest.mark.attack("a download without an end", entry="the publisher's address", result="refused after 1 MiB")
def test_a_download_without_an_end(tmp_path):
    with http.server.HTTPServer(("127.0.0.1", 0), Endless) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with pytest.raises(SourceError, match="has more than 1,058,576 bytes"):
                sources.download(tmp_path, f"http://127.0.0.1:{server.server_port}/")
        finally:
            server.shutdown()
            thread.join()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 2 * 2**20
