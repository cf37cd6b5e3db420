"""The places that can have Fashion-MNIST's four IDX files, and the cache of what was once read from them."""

import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import requests
    from rich.progress import Progress

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DEBIAN_PACKAGE = "dataset-fashion-mnist"
OFFICIAL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
# Shape, and SHA-256 of the decompressed file: Debian compressed the files anew, so that theirs differ.
# The smallest comes first, so that a dead link is noticed early.
IDX_FILES: dict[str, tuple[tuple[int, ...], str]] = {
    "t10k-labels-idx1-ubyte": ((10_000,), "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
    "train-labels-idx1-ubyte": ((60_000,), "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
    "t10k-images-idx3-ubyte": ((10_000, 28, 28), "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    "train-images-idx3-ubyte": ((60_000, 28, 28), "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
}
# the address has several IP addresses, each tried for this long: an offline machine must not wait for a minute
CONNECT_SECONDS, READ_SECONDS = 2, 15
PAUSES = (0.5, 2.0)  # seconds before the second and the third attempt

log = logging.getLogger(__name__)


class SourceError(Exception):
    """A place cannot give the data; the message says why."""


@dataclass(frozen=True, eq=False)
class Parsed:
    """The images and labels of one source, before the split."""

    train_images: NDArray[np.uint8]  # (N, 28, 28)
    train_labels: NDArray[np.uint8]  # (N,)
    test_images: NDArray[np.uint8]  # (M, 28, 28)
    test_labels: NDArray[np.uint8]  # (M,)
    source: str


@dataclass(frozen=True)
class Source:
    """A place to look: `fetch` gets an empty folder to use, and returns the folder where the files are."""

    name: str
    fetch: Callable[[Path], Path]
    origin: str  # what a run's dataset is said to come from


def debian_folder(_: Path, folder: Path = DEBIAN_FOLDER) -> Path:
    """The folder of Debian's package, where it is installed. Raises SourceError."""
    if not folder.is_dir():
        raise SourceError("no such folder")
    return folder


def download(folder: Path, address: str = OFFICIAL) -> Path:
    """Fetch the four files from the publisher, with a bar on a terminal. Raises SourceError."""
    import requests
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        print(f"downloading Fashion-MNIST from {address}", file=sys.stderr)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    try:
        with (
            requests.Session() as session,
            Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
        ):
            for name in IDX_FILES:
                _download_file(session, f"{address}{name}.gz", folder / f"{name}.gz", progress)
    except requests.RequestException as error:
        raise SourceError(_short(error)) from error
    return folder


def _download_file(session: "requests.Session", url: str, target: Path, progress: "Progress") -> None:
    """Write one file; broken transfers and busy servers are tried again, dead links and wrong addresses are not."""
    import requests

    task = progress.add_task(target.name, total=None)
    for pause in (*PAUSES, None):
        progress.reset(task)
        try:
            with session.get(url, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as response:
                response.raise_for_status()
                progress.update(task, total=float(response.headers.get("Content-Length", 0)) or None)
                with target.open("wb") as file:
                    for part in response.iter_content(2**16):
                        file.write(part)
                        progress.advance(task, len(part))
            return
        except requests.RequestException as error:
            status = 0 if error.response is None else error.response.status_code
            hopeless = isinstance(error, requests.ConnectTimeout) or (400 <= status < 500 and status not in (408, 429))
            if pause is None or hopeless:
                raise
        time.sleep(pause)


def debian_archive(folder: Path) -> Path:
    """Download Debian's package with apt-get and unpack it, without root. Raises SourceError.

    The lists are private, since a fresh machine's own are empty and only root may fill them.
    """
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise SourceError("this machine has no apt-get")
    print(f"downloading Debian's package {DEBIAN_PACKAGE} with apt-get", file=sys.stderr)
    lists, cache = folder / "lists", folder / "cache"
    (lists / "partial").mkdir(parents=True)
    (cache / "archives" / "partial").mkdir(parents=True)
    # apt run by root would work as the user _apt, who cannot write here; for other users the setting has no effect
    settings = {"Dir::State::Lists": lists, "Dir::Cache": cache, "APT::Sandbox::User": "root"}
    settings |= {"Acquire::Languages": "none", "Acquire::Retries": "1"}
    settings |= {"Acquire::http::Timeout": "10", "Acquire::https::Timeout": "10"}
    apt = ["apt-get", "-q", *(part for key, value in settings.items() for part in ("-o", f"{key}={value}"))]
    # one broken repository among several fails the update, and need not be the one that has the package
    updated = _command([*apt, "update"], folder, seconds=120)
    fetched = _command([*apt, "download", DEBIAN_PACKAGE], folder, seconds=300)
    packages = list(folder.glob("*.deb"))
    if fetched or not packages:
        raise SourceError("; ".join(filter(None, (fetched, updated))) or "apt-get downloaded nothing")
    if failed := _command(["dpkg-deb", "-x", str(packages[0]), str(folder / "unpacked")], folder, seconds=60):
        raise SourceError(failed)
    return folder / "unpacked" / DEBIAN_FOLDER.relative_to("/")


def _command(command: Sequence[str], folder: Path, seconds: int) -> str:
    """Run it in the folder; what it said of its failure in one line, or nothing where it succeeded."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, timeout=seconds, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        return f"{command[0]} did not finish within {seconds} s"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E:")] or lines or [f"{command[0]} returned {done.returncode}"]
    return errors[0][:200] if done.returncode else ""


def _short(error: Exception) -> str:
    """The innermost reason of an error of requests, which wraps it twice and repeats the address each time."""
    reason = getattr(error.args[0], "reason", error) if error.args else error
    return re.sub(r"^HTTPS?Connection\w*\(.*?\): ", "", " ".join(str(reason).split()))[:200]


SOURCES = (
    Source(f"Debian's folder {DEBIAN_FOLDER}", debian_folder, str(DEBIAN_FOLDER)),
    Source(f"download from {OFFICIAL}", download, OFFICIAL),
    Source(f"Debian's archive, package {DEBIAN_PACKAGE}", debian_archive, f"Debian package {DEBIAN_PACKAGE}"),
)


def cache_folder() -> Path:
    """Where parsed arrays are kept."""
    if named := os.environ.get("FMNIST_EXP_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "fmnist_exp"


# An entry is one file: the SHA-256 of all that follows, a line of JSON, and the bytes of the four arrays.
_DIGEST = hashlib.sha256().digest_size * 2 + 1  # characters of the first line


def read_cache(name: str, stamp: str) -> Parsed:
    """The entry `name`, memory-mapped, if it is whole and carries this stamp. Raises SourceError."""
    path = cache_folder() / name
    try:
        content = np.memmap(path, np.uint8, mode="r").view(np.ndarray)
        # 30 ms for 55 MB, against hours lost to a damaged file
        if content[:_DIGEST].tobytes() != _line(hashlib.sha256(content[_DIGEST:].data).hexdigest()):
            raise SourceError("damaged; it is made anew")
    except FileNotFoundError as error:
        raise SourceError("empty") from error
    except (OSError, ValueError) as error:
        raise SourceError(f"unreadable: {error}") from error
    end = _DIGEST + content[_DIGEST : _DIGEST + 2**16].tobytes().index(b"\n") + 1
    header = json.loads(content[_DIGEST:end].tobytes())
    if header["stamp"] != stamp:
        raise SourceError("the files have changed since")
    train, test = header["train"], header["test"]
    parts = np.split(content[end:], np.cumsum([train * 784, train, test * 784]))
    images, labels, test_images, test_labels = parts
    return Parsed(images.reshape(-1, 28, 28), labels, test_images.reshape(-1, 28, 28), test_labels, header["source"])


def write_cache(name: str, stamp: str, parsed: Parsed) -> None:
    """Keep the arrays as the entry `name`. Where that fails, a notice is logged and the run goes on without."""
    folder = cache_folder()
    counts = {"train": len(parsed.train_labels), "test": len(parsed.test_labels)}
    header = _line(json.dumps({"source": parsed.source, "stamp": stamp, **counts}))
    arrays = parsed.train_images, parsed.train_labels, parsed.test_images, parsed.test_labels
    parts = [header, *(array.tobytes() for array in arrays)]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # another process may be writing the same entry: each writes its own file, and the renaming is atomic
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as temporary:
            draft = Path(temporary) / name
            with draft.open("wb") as file:
                file.writelines([_line(digest.hexdigest()), *parts])
            os.replace(draft, folder / name)
    except OSError as error:
        log.warning("the images are not cached, and the next start will be slower: %s", error)


def _line(text: str) -> bytes:
    return f"{text}\n".encode()
