"""Open the pages of a long study in headless Chromium, and time them: the study's page and the MLflow UI.

The folder is one of `python -m benchmarks.scale`. Its databases are copied, so that a measurement that is still running
there is not disturbed. A page is open when everything on it has been drawn; each is opened with an empty cache.

    python -m benchmarks.scale.pages --folder FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import chdir, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.scale import FOLDER
from benchmarks.scale.costs import STUDY

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

COMPARED = 50  # runs
SECONDS = 120  # that a page may take
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--folder", type=Path, default=FOLDER, help="folder of the databases, which are SQLite's")
    made.add_argument("--repeats", type=int, default=3, help="number of times that each page is opened (default: 3)")
    made.add_argument("--pictures", type=Path, help="folder for a picture of each page")
    return made


def main() -> None:
    """Time the pages and print a line for each."""
    given = parser().parse_args()
    with tempfile.TemporaryDirectory() as temporary, chdir(temporary), chromium() as browser:
        folder = Path(temporary)
        for name in ("mlflow.db", "studies.db"):
            with closing(sqlite3.connect(given.folder.absolute() / name)) as here, closing(sqlite3.connect(name)) as to:
                here.backup(to)
        seconds, size = write(folder)
        print(f"study's page: written with all figures in {seconds:.1f} s of CPU time, {size / 1e6:.2f} MB")

        def show(what: str, address: str, is_open: Callable[[Page], Any]) -> None:
            times = [opened(browser, address, is_open, what, given.pictures) for _ in range(given.repeats)]
            spread = f"{min(times):.1f} … {max(times):.1f}"
            print(f"{what}: {statistics.median(times):.1f} s ({spread}, n = {len(times)})", flush=True)

        page = f"file://{folder}/study/figures.html"
        show("study's page", page, lambda page: page.wait_for_selector("body[data-drawn]", state="attached"))
        with server(folder) as url:
            runs, seconds, size = search(url)
            print(f"MLflow's answer with 100 runs: {seconds:.2f} s, {size / 1e3:,.0f} kB")
            listed = f"{url}/#/experiments/0/runs"
            show("MLflow UI, list of runs", listed, lambda page: page.wait_for_selector("text=matching runs"))
            ids = urllib.parse.quote(json.dumps(runs[:COMPARED]))
            compared = f'{url}/#/compare-runs?runs={ids}&experiments=["0"]'
            show(f"MLflow UI, comparison of {COMPARED} trials", compared, is_compared)


def write(folder: Path) -> tuple[float, int]:
    """Write the study's page below the folder; return the CPU seconds and its size in bytes."""
    import optuna

    from benchmarks.scale.search import configure
    from fmnist_exp.tuning.report import write as report

    study = optuna.load_study(study_name=STUDY, storage=f"sqlite:///{folder}/studies.db")
    search = configure(1).search
    assert search is not None
    start = time.process_time()
    report.write(study, search, folder, images=6000)
    return time.process_time() - start, (folder / "study" / "figures.html").stat().st_size


def is_compared(page: Page) -> None:
    """Wait for the plot and the table of a comparison of runs."""
    page.wait_for_selector(f"text=Comparing {COMPARED} Runs")
    page.wait_for_selector(".js-plotly-plot .main-svg")
    page.wait_for_selector("text=Run details")


def opened(browser: Browser, address: str, is_open: Callable[[Page], Any], name: str, pictures: Path | None) -> float:
    """Return the seconds that a page takes to open with an empty cache."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    try:
        page = context.new_page()
        page.set_default_timeout(1000 * SECONDS)
        start = time.perf_counter()
        page.goto(address, wait_until="commit")
        is_open(page)
        seconds = time.perf_counter() - start
        if pictures is not None:
            page.screenshot(path=pictures / f"{name}.png", full_page=True)
        return seconds
    finally:
        context.close()


def search(url: str) -> tuple[list[str], float, int]:
    """Return the newest trials' run ids as the UI's list asks for them, the seconds of the answer and its bytes."""
    body = json.dumps({"experiment_ids": ["0"], "max_results": 100, "order_by": ["attributes.start_time DESC"]})
    request = urllib.request.Request(
        f"{url}/api/2.0/mlflow/runs/search", body.encode(), {"Content-Type": "application/json"}
    )
    start = time.perf_counter()
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        content = answer.read()
    return [run["info"]["run_id"] for run in json.loads(content)["runs"]], time.perf_counter() - start, len(content)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield the system's Chromium."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=list(FLAGS))


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """Run MLflow's server with its UI on the databases of the folder, and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    with (folder / "server.log").open("w") as log:
        settings = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        running = subprocess.Popen(command, env=settings, stdout=log, stderr=log, start_new_session=True)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + SECONDS
    try:
        while True:
            with suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
                break
            if running.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((folder / "server.log").read_text())
            time.sleep(0.2)
        yield url
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, 15)
        running.wait(30)


if __name__ == "__main__":
    main()
