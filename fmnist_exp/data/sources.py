"""The places that can have Fashion-MNIST's four IDX files, and the cache of what was once read from them."""

import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import requests
    from rich.progress import Progress

from fmnist_exp.data.formats import IDX_FILES, SourceError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DEBIAN_PACKAGE = "dataset-fashion-mnist"
OFFICIAL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
# the address has several IP addresses, each tried for this long: an offline machine must not wait for a minute
CONNECT_SECONDS, READ_SECONDS = 2, 15
PAUSES = (0.5, 2.0)  # seconds before the second and the third attempt

log = logging.getLogger(__name__)


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
