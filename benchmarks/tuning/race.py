"""Compare searches with the same space, images and wall-clock budget: how good is the best network, and when?

The contestants are this platform (`fmnist-exp tune --experiment tune_cnn`) and the programs of benchmarks/peers/, which
their docstrings describe. The clock starts with the process, imports included; an epoch counts when it was measured.
An attempt is not repeated while the folder has its result for this code and machine, so the command can be stopped and
repeated. `make race` installs KerasTuner first.
The peers run twice, with two ways of fitting: `same` is the platform's recipe, `tutorial` is their own.
Usage: python -m benchmarks.tuning.race [CONTESTANT …] [--minutes 10] [--repeats 3] [--recipe same|tutorial] [--publish]
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.processes import PROJECT
from benchmarks.runs import here
from benchmarks.tuning.race_page import CONTESTANTS, OURS, RECIPES, Attempt, curves, page

PEERS = PROJECT / "benchmarks" / "peers"
PATIENCE = 300  # seconds that a contestant has after its budget to end by itself


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contestants", nargs="*", metavar="CONTESTANT", help=", ".join(CONTESTANTS))
    parser.add_argument("--minutes", type=float, default=10.0, help="budget of each attempt")
    parser.add_argument("--repeats", type=int, default=3, help="attempts of each contestant, each with its own seed")
    parser.add_argument("--recipe", choices=RECIPES, help="only this way in which the peers fit (default: both)")
    parser.add_argument("--folder", type=Path, default=PROJECT / "race", help="folder of the results")
    parser.add_argument("--publish", action="store_true", help="write docs/tune_race.md and its figure")
    return parser


def main() -> None:
    given = parser().parse_args()
    chosen = given.contestants or list(CONTESTANTS)
    if unknown := set(chosen) - set(CONTESTANTS):
        parser().error(f"no contestant {min(unknown)!r}; there are {', '.join(CONTESTANTS)}")
    version = here()
    digest = version.digest(sorted([*PEERS.glob("*.py"), Path(__file__)]))
    folder = given.folder / f"{given.minutes:g}-minutes-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    for repeat in range(given.repeats):  # the first attempt of all contestants comes before the second of any
        for recipe in [given.recipe] if given.recipe else RECIPES:
            for name in chosen:
                file = folder / f"{OURS if name == OURS else f'{name}-{recipe}'}-{repeat}.json"
                if not file.exists():
                    print(f"{file.stem}: {given.minutes:g} minutes", flush=True)
                    write(run(name, repeat, 60 * given.minutes, recipe), file)
    attempts = read(folder)
    text = page(attempts, given.minutes, version.describe())
    print(text)
    curves(attempts, given.minutes).savefig(folder / "curves.png")
    (folder / "table.md").write_text(text, encoding="utf-8")
    if given.publish:
        shutil.copy(folder / "curves.png", PROJECT / "docs" / "pictures" / "tune-race.png")
        figure = "\n![Best validation accuracy over time](pictures/tune-race.png)\n"
        (PROJECT / "docs" / "tune_race.md").write_text(text + figure, encoding="utf-8")


def run(name: str, repeat: int, seconds: float, recipe: str) -> Attempt:
    """Make one attempt in an empty folder with a tracking store of its own."""
    with tempfile.TemporaryDirectory(prefix="race-") as work:
        notes = Path(work) / "notes.jsonl"
        environment = processes.environment(Path(work)) | {"RACE_START": str(start := time.time())}
        log = Path(work) / "log.txt"
        with log.open("w") as output:
            process = subprocess.Popen(
                command(name, repeat, seconds, recipe, notes),
                cwd=work,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code = wait(process, seconds)
        points = tracked(Path(work), start) if name == OURS else noted(notes)
        if code not in (0, None):
            raise SystemExit(f"{name} ended with {code} and {len(points)} epochs:\n{log.read_text()[-3000:]}")
    in_time = [point for point in points if point[0] <= seconds]
    return Attempt(name, "" if name == OURS else recipe, repeat, seconds, in_time)


def command(name: str, repeat: int, seconds: float, recipe: str, notes: Path) -> list[str]:
    """Return the command of an attempt."""
    if name == OURS:
        fields = {"seed": repeat, "data.split_seed": 0, "search.n_trials": 100_000, "search.timeout": seconds / 60}
        return processes.python("fmnist_exp", "tune", *processes.options({"experiment": "tune_cnn", **fields}))
    options = processes.options({"seconds": seconds, "seed": repeat, "recipe": recipe, "notes": notes})
    return processes.python(f"benchmarks.peers.{name}", *options)


def wait(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    """Return the exit code; None if the process had to be killed, long after its time."""
    try:
        return process.wait(seconds + PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def noted(file: Path) -> list[tuple[float, int, float]]:
    """Return the points of a peer, from its notes."""
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [(line["seconds"], line["trial"], line["val_accuracy"]) for line in lines]


def tracked(folder: Path, start: float) -> list[tuple[float, int, float]]:
    """Return the points of the platform, from its runs in MLflow."""
    import mlflow

    client = mlflow.MlflowClient(processes.store(folder))
    points = []
    for run in client.search_runs(["0"], "tags.`fmnist.kind` = 'trial'", max_results=1000):
        number = int(run.data.tags["fmnist.trial"])
        for metric in client.get_metric_history(run.info.run_id, "val_accuracy"):
            points.append((metric.timestamp / 1000 - start, number, metric.value))
    return points


def write(attempt: Attempt, file: Path) -> None:
    """Write the attempt, at once or not at all."""
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(vars(attempt), indent=1) + "\n", encoding="utf-8")
    temporary.replace(file)


def read(folder: Path) -> list[Attempt]:
    """Return the attempts that the folder has."""
    attempts = []
    for file in sorted(folder.glob("*.json")):
        known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        attempts.append(Attempt(**{**known, "points": [tuple(point) for point in known["points"]]}))
    return attempts


if __name__ == "__main__":
    main()
