"""The sources of Fashion-MNIST's files: Debian's package, the publisher, and Debian's archive."""

import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from urllib3.util import Retry

from fmnist_exp.data.formats import IDX_FILES, SLACK, SourceError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DEBIAN_PACKAGE = "dataset-fashion-mnist"
OFFICIAL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
# the address has several IP addresses, each tried for this long: an offline machine must not wait for a minute
CONNECT_SECONDS, READ_SECONDS = 2, 15
# a busy server is asked three times in all; an address that cannot be reached is asked once
RETRY = Retry(
    total=2,
    connect=0,
    backoff_factor=0.5,  # seconds before the third attempt, there is no pause before the second
    status_forcelist=(408, 429, 500, 502, 503, 504),
    respect_retry_after_header=False,  # it may ask for hours
    raise_on_status=False,
)
TRANSFERS = 2  # attempts to transfer a whole file


@dataclass(frozen=True)
class Source:
    """A source of the data: `fetch` takes an empty folder and returns one that has the files, or raises SourceError."""

    name: str
    fetch: Callable[[Path], Path]
    origin: str  # the source that a run's dataset names


def debian_folder(_: Path, folder: Path = DEBIAN_FOLDER) -> Path:
    """Return the folder of Debian's package. Raises SourceError if it is not installed."""
    if not folder.is_dir():
        raise SourceError("no such folder")
    return folder


def download(folder: Path, address: str = OFFICIAL) -> Path:
    """Download the four files from the publisher into `folder`, with a progress bar on a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        print(f"downloading Fashion-MNIST from {address}", file=sys.stderr)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    try:
        with (
            requests.Session() as session,
            Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
        ):
            session.mount(address, HTTPAdapter(max_retries=RETRY))
            for file in IDX_FILES.values():
                limit = math.prod(file.shape) + SLACK
                _download_file(session, f"{address}{file.name}.gz", folder / f"{file.name}.gz", progress, limit)
    except requests.RequestException as error:
        raise SourceError(_short(error)) from error
    return folder


def _download_file(session: requests.Session, url: str, target: Path, progress: Progress, limit: int) -> None:
    """Download one file; if the transfer breaks off, try once more. Raises SourceError after `limit` bytes."""
    task = progress.add_task(target.name, total=None)
    for attempt in range(1, TRANSFERS + 1):
        progress.reset(task)
        with session.get(url, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as response:
            response.raise_for_status()
            progress.update(task, total=float(response.headers.get("Content-Length", 0)) or None)
            try:
                with target.open("wb") as file:
                    for part in response.iter_content(2**16):
                        if file.tell() + len(part) > limit:
                            raise SourceError(f"{url} has more than {limit:,} bytes")
                        file.write(part)
                        progress.advance(task, len(part))
                return
            except requests.RequestException:
                if attempt == TRANSFERS:
                    raise


def debian_archive(folder: Path) -> Path:
    """Download Debian's package with apt-get into `folder` and unpack it there, without root.

    Its package lists are downloaded into `folder` too, since those of a fresh machine are empty and only root may fill
    them.
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
    # the update fails if one of several repositories is broken, which may not be the one that has the package
    updated = _command([*apt, "update"], folder, seconds=120)
    fetched = _command([*apt, "download", DEBIAN_PACKAGE], folder, seconds=300)
    packages = list(folder.glob("*.deb"))
    if fetched or not packages:
        raise SourceError("; ".join(filter(None, (fetched, updated))) or "apt-get downloaded nothing")
    if failed := _command(["dpkg-deb", "-x", str(packages[0]), str(folder / "unpacked")], folder, seconds=60):
        raise SourceError(failed)
    return folder / "unpacked" / DEBIAN_FOLDER.relative_to("/")


def _command(command: Sequence[str], folder: Path, seconds: int) -> str:
    """Run a command in the folder; return one line about its failure, or nothing if it succeeded."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, timeout=seconds, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        return f"{command[0]} did not finish within {seconds} s"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("E:")] or lines or [f"{command[0]} returned {done.returncode}"]
    return errors[0][:200] if done.returncode else ""


def _short(error: Exception) -> str:
    """Return the innermost reason of an error; requests wraps it twice and repeats the address each time."""
    reason = getattr(error.args[0], "reason", error) if error.args else error
    return re.sub(r"^HTTPS?Connection\w*\(.*?\): ", "", " ".join(str(reason).split()))[:200]


SOURCES = (
    Source(f"Debian's folder {DEBIAN_FOLDER}", debian_folder, str(DEBIAN_FOLDER)),
    Source(f"download from {OFFICIAL}", download, OFFICIAL),
    Source(f"Debian's archive, package {DEBIAN_PACKAGE}", debian_archive, f"Debian package {DEBIAN_PACKAGE}"),
)
