"""The searches of a soak: one command after another, each started again in the same words until it ends well."""

import contextlib
import csv
import os
import random
import signal
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks import processes
from benchmarks.chaos import services

EPOCHS = 6
SETTING = {
    "model.widths": "[64]",
    "training.epochs": EPOCHS,
    "training.batch_size": 64,
    "training.steps_per_execution": 1,
    "training.precision": "float32",
    "data.validation_fraction": 0.2,
    "data.gate_fraction": 0.2,
    "gate.min_images": 100,
    "search.timeout": 600,
    "search.space": "{model.dropout: {low: 0.0, high: 0.3}, training.learning_rate: {low: 1e-3, high: 1e-2}}",
}
AGAIN_SECONDS = 2.0  # between the end of a command and its next start
ORPHAN_SECONDS = 30  # within which workers must notice that their driver is gone


@dataclass(frozen=True)
class Session:
    """One start of the command, which has ended."""

    study: str
    code: int
    text: str  # what it printed


class Searches:
    """Studies named chaos-0, chaos-1, …, each run by `fmnist-exp tune` with the same options until it exits with 0."""

    def __init__(self, folder: Path, logs: Path, options: dict[str, object], **environment: str) -> None:
        self.folder, self.logs = folder, logs
        logs.mkdir()
        self.options = {"experiment": "tune_mlp", **SETTING, **options}
        self.environment = {**processes.environment(folder), **environment}
        self.sessions: list[Session] = []
        self.killed = 0
        self.outlived: list[str] = []  # workers that stayed when their driver was gone
        self.done = 0  # studies
        self.stopping = False  # no further study begins
        self._gone: dict[int, float] = {}  # process → when its driver was killed
        self._driver: subprocess.Popen | None = None
        self._again = 0.0

    @property
    def study(self) -> str:
        """The study in progress, or the next one."""
        return f"chaos-{self.done}"

    @property
    def pid(self) -> int | None:
        """The driver, if it is alive."""
        return self._driver.pid if self._driver and self._driver.poll() is None else None

    def workers(self) -> list[psutil.Process]:
        """Return the processes that run trials, recognised by how multiprocessing starts them for Dask."""
        with contextlib.suppress(psutil.Error, TypeError):
            children = psutil.Process(self.pid).children(recursive=True) if self.pid else []
            return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        return []

    def tick(self) -> None:
        """Notice the end of the command, and start it again, or the command of the next study."""
        self._watch_orphans()
        if self._driver is not None and self._driver.poll() is not None:
            text = self._log().read_text(errors="replace")
            self.sessions.append(Session(self.study, self._driver.returncode, text))
            self.done += self._driver.returncode == 0
            self._driver, self._again = None, time.monotonic() + AGAIN_SECONDS
        if self._driver is None and time.monotonic() > self._again and not (self.stopping and self.is_between):
            self._start()

    @property
    def is_between(self) -> bool:
        """True while no study is in progress: the last one has ended, and the next one has not begun."""
        return self._driver is None and (not self.sessions or self.sessions[-1].code == 0)

    def kill_worker(self, luck: int) -> bool:
        """Kill a worker; return False if there is none."""
        if workers := self.workers():
            with contextlib.suppress(psutil.NoSuchProcess):
                random.Random(luck).choice(workers).kill()
                return True
        return False

    def kill_driver(self) -> bool:
        """Kill the driver alone; return False if there is none. Its workers must end by themselves."""
        if self.pid is None or self._driver is None:
            return False
        now = time.monotonic()
        self._gone |= {worker.pid: now for worker in self.workers()}
        self._driver.kill()
        self._driver.wait()
        self.killed += 1
        return True

    def close(self) -> None:
        """Kill what is left of the command."""
        if self._driver is not None:
            services.kill_tree(self._driver.pid)
            self._driver.wait()
        for pid in self._gone:
            services.kill_tree(pid)

    def codes(self) -> Counter[int]:
        """Return how often the command ended with each exit code; a kill counts as -9."""
        return Counter(session.code for session in self.sessions)

    def sync(self) -> tuple[int, str]:
        """Run `fmnist-exp sync`; return its exit code and what it printed."""
        command = processes.python("fmnist_exp", "sync")
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def _log(self) -> Path:
        return self.logs / f"{len(self.sessions):03}-{self.study}.log"

    def _start(self) -> None:
        command = processes.python("fmnist_exp", "tune", *processes.options({"study": self.study, **self.options}))
        with self._log().open("w") as log:
            self._driver = subprocess.Popen(
                command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def _watch_orphans(self) -> None:
        for pid, since in list(self._gone.items()):
            if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                del self._gone[pid]
            elif time.monotonic() > since + ORPHAN_SECONDS:
                self.outlived.append(f"worker {pid} of {self.study}")
                os.kill(pid, signal.SIGKILL)


def write_images(folder: Path, count: int) -> Path:
    """Write the first `count` training images and a quarter as many test images as CSV files; return their folder."""
    from fmnist_exp.config.schema import DataConfig
    from fmnist_exp.data import dataset, formats

    data = dataset.load(DataConfig(validation_fraction=0, gate_fraction=0), seed=0)
    folder.mkdir()
    for split, many in ((data.train, count), (data.test, count // 4)):
        with (folder / formats.CSV_FILES[split.name]).open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(formats.CSV_HEADER)
            rows = np.column_stack([split.labels[:many], split.images[:many].reshape(many, -1)])
            table.writerows(rows.tolist())
    return folder
