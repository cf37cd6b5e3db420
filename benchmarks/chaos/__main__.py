"""Search with two workers while an adversary breaks what it can, then check that nothing was lost.

Searches of small fits on real images run by the real command `fmnist-exp tune`, one after another, each with two
workers, against an `mlflow server` on PostgreSQL, which also has the studies. Meanwhile, by a plan that the seed
determines, workers, drivers, the server and PostgreSQL are killed, disks are filled, connections are cut and delayed,
calls are lost, and bits are flipped in records that were not sent yet. At the end everything is up again, the search
that is in progress ends, `fmnist-exp sync` runs, and the studies, MLflow's database and its files are compared.

    python -m benchmarks.chaos --minutes 60 --seed 0      # needs PostgreSQL's programs; the disks are for root only

It prints what was injected and what was checked, writes the same to --report, and exits with 1 if a check fails.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from benchmarks import arguments
from benchmarks.chaos import checks, report, searches, services
from benchmarks.chaos.adversary import Adversary, Stage
from benchmarks.chaos.plan import plan
from benchmarks.chaos.sampling import Sampler
from benchmarks.line import Line

TICK_SECONDS = 0.1
CALM_SECONDS = 900  # for the search in progress to end when everything is up again
DISK_MIB = {"server": 1024, "local": 256}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return arguments.parser(
        __doc__,
        minutes=(60.0, "time during which faults are injected"),
        seed=(0, "random seed of the faults"),
        trials=(24, "trials of each search"),
        workers=(2, "workers of each search"),
        images=(2000, "training images, before the split"),
        report=("", "file to write the report to, in Markdown"),
        keep=("", "folder to work in, which is kept, with the local disk if a check fails; empty: a temporary one"),
    )


def main() -> int:
    """Run the soak, print the report and return the exit code."""
    given = parser().parse_args()
    signal.signal(signal.SIGTERM, _end)  # so that no process is left
    with contextlib.ExitStack() as stack:
        folder = Path(given.keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # PostgreSQL runs as another user
        begin = time.time()
        made = stack.enter_context(stage(folder, given))
        adversary = Adversary(made, plan(given.seed, given.minutes))
        sampler = Sampler(lambda: _watched(made))
        until = time.monotonic() + given.minutes * 60
        while time.monotonic() < until:
            adversary.tick()
            _tick(made)
        adversary.mend()
        calm = _calm(made)
        found = report.Soak(given, begin, time.time(), adversary.counts, adversary.calls, made.searches.sessions)
        found.rows += [calm, *_checks(made, given.trials)]
        found.lives += sampler.close()
        left = checks.half_uploads(made.server_disk.folder)
        if given.keep and not all(row.holds for row in found.all_rows()):
            shutil.copytree(made.local_disk.folder, folder / "local-disk")  # the disk itself ends with the soak
        found.notes.append(f"Killed servers left {left} unfinished uploads on their disk, which MLflow itself hides.")
    text = found.text()
    print(text, flush=True)
    if given.report:
        Path(given.report).write_text(text, encoding="utf-8")
    return 0 if all(row.holds for row in found.all_rows()) else 1


@contextlib.contextmanager
def stage(folder: Path, given: argparse.Namespace) -> Iterator[Stage]:
    """Start everything that a soak needs, and end it with the block."""
    with contextlib.ExitStack() as stack:
        disks = {name: services.Disk(folder / name, size) for name, size in DISK_MIB.items()}
        for disk in disks.values():
            stack.callback(disk.close)
        images = searches.write_images(folder / "images", given.images)
        database = services.Database(folder, folder / "postgres.log")
        stack.callback(database.kill)
        database.start()
        database.wait()
        for name in ("mlflow", "studies"):
            database.sql(f"CREATE DATABASE {name}")
        artifacts = disks["server"].folder / "artifacts"
        server, url = services.tracking_server(folder, folder / "server.log", database.url("mlflow"), artifacts)
        stack.callback(server.kill)
        server.start()
        server.wait()
        line = stack.enter_context(Line(url, given.seed))
        work, spool = disks["local"].folder, disks["local"].folder / "spool"
        (work / "tmp").mkdir()
        environment = {"MLFLOW_TRACKING_URI": line.url, "FMNIST_EXP_STORAGE": database.url("studies")}
        environment |= {"FMNIST_EXP_SPOOL": str(spool), "TMPDIR": str(work / "tmp")}
        environment |= {"FMNIST_EXP_CACHE": str(folder / "cache")}
        options = {"data.source": images, "n_trials": given.trials, "workers": given.workers}
        running = searches.Searches(work, folder / "sessions", options, **environment)
        stack.callback(running.close)
        yield Stage(database, server, line, running, disks["server"], disks["local"], spool)


def _tick(made: Stage) -> None:
    for service in (made.database, made.server, made.searches):
        service.tick()
    time.sleep(TICK_SECONDS)


def _calm(made: Stage) -> checks.Row:
    """Let the search in progress end with everything up; return the check that it did, and with exit code 0."""
    made.database.wait()
    made.server.wait()
    made.searches.stopping = True
    until = time.monotonic() + CALM_SECONDS
    starts = len(made.searches.sessions)
    while not made.searches.is_between and time.monotonic() < until:
        _tick(made)
    late = made.searches.sessions[starts:]
    wrong = [] if made.searches.is_between else [f"not ended after {CALM_SECONDS} s"]
    # the first of them may have suffered before the faults ended
    wrong += [session.text.strip().splitlines()[-1] for session in late[1:] if session.code]
    return checks.no("commands that failed although everything was up", wrong)


def _checks(made: Stage, trials: int) -> Iterator[checks.Row]:
    searched = made.searches
    yield checks.no("workers that outlived their driver", searched.outlived)
    codes, texts = [], []
    for number in (1, 2):
        before = checks.snapshot(made.database)
        code, text = searched.sync()
        codes.append(code)
        texts.append(text.strip())
        if number == 2:
            yield checks.Row(
                "changes by a second `fmnist-exp sync`", checks.snapshot(made.database) != before, False, text
            )
    yield checks.Row("exit codes of `fmnist-exp sync`", codes, [0, 0], "; ".join(texts))
    yield checks.no("files left in the spool", [path for path in made.spool.rglob("*") if path.is_file()])
    yield from checks.of_studies(made.database, searched.done, trials)
    yield from checks.of_files(made.database, made.server_disk.folder / "artifacts")


def _watched(made: Stage) -> list[tuple[str, int]]:
    """Return the processes whose memory and open files are watched, with their roles."""
    found = [("driver", made.searches.pid), ("server", made.server.main_pid()), ("PostgreSQL", made.database.pid)]
    found += [("worker", worker.pid) for worker in made.searches.workers()]
    return [(role, pid) for role, pid in found if pid is not None]


def _end(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(143)


if __name__ == "__main__":
    raise SystemExit(main())
