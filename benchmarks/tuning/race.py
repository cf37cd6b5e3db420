"""Compare searches with the same space, images and wall-clock budget: how good is the best network, and when?

The contestants are this platform (`fmnist-exp tune --experiment tune_cnn`) and the programs of benchmarks/peers/, which
their docstrings describe. The clock starts with the process, imports included; an epoch counts when it was measured.
An attempt is not repeated while the folder has its result, so the command can be stopped and repeated. `make race`
installs KerasTuner first.
Usage: python -m benchmarks.tuning.race [CONTESTANT …] [--minutes 10] [--repeats 3] [--recipe tutorial|same] [--publish]
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks import processes
from benchmarks.processes import PROJECT
from benchmarks.reporting import processor, spread

OURS, PLAIN = "fmnist_exp", "plain_optuna"
CONTESTANTS = (OURS, PLAIN, "hyperband", "random_search", "one_epoch_top_k")
PATIENCE = 300  # seconds that a contestant has after its budget to end by itself


@dataclass(frozen=True)
class Attempt:
    """One attempt of a contestant; a point per epoch: seconds since the start, trial, validation accuracy."""

    contestant: str
    repeat: int
    seconds: float  # the budget
    points: list[tuple[float, int, float]]

    @property
    def best(self) -> float:
        """The best accuracy of an epoch."""
        return max((accuracy for _, _, accuracy in self.points), default=0.0)

    @property
    def trials(self) -> int:
        """The number of trials."""
        return len({trial for _, trial, _ in self.points})

    def curve(self) -> list[tuple[float, float]]:
        """Return each new best accuracy, after its time in seconds."""
        best, steps = 0.0, []
        for seconds, _, accuracy in sorted(self.points):
            if accuracy > best:
                best = accuracy
                steps.append((seconds, accuracy))
        return steps

    def reaches(self, accuracy: float) -> float | None:
        """Return the seconds until this accuracy; None if it was never reached."""
        return next((seconds for seconds, best in self.curve() if best >= accuracy), None)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contestants", nargs="*", metavar="CONTESTANT", help=", ".join(CONTESTANTS))
    parser.add_argument("--minutes", type=float, default=10.0, help="budget of each attempt")
    parser.add_argument("--repeats", type=int, default=3, help="attempts of each contestant, each with its own seed")
    parser.add_argument("--recipe", choices=("tutorial", "same"), default="tutorial", help="way in which the peers fit")
    parser.add_argument("--folder", type=Path, default=PROJECT / "race", help="folder of the results")
    parser.add_argument("--publish", action="store_true", help="write docs/tune_race.md and its figure")
    return parser


def main() -> None:
    given = parser().parse_args()
    chosen = given.contestants or list(CONTESTANTS)
    if unknown := set(chosen) - set(CONTESTANTS):
        parser().error(f"no contestant {min(unknown)!r}; there are {', '.join(CONTESTANTS)}")
    folder = given.folder / f"{given.recipe}-{given.minutes:g}-minutes"
    folder.mkdir(parents=True, exist_ok=True)
    for repeat in range(given.repeats):  # the first attempt of all contestants comes before the second of any
        for name in chosen:
            file = folder / f"{name}-{repeat}.json"
            if not file.exists():
                print(f"{name}, attempt {repeat + 1} of {given.repeats}, {given.minutes:g} minutes", flush=True)
                write(run(name, repeat, 60 * given.minutes, given.recipe), file)
    attempts = read(folder)
    text = page(attempts, given.recipe, given.minutes)
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
    return Attempt(name, repeat, seconds, [point for point in points if point[0] <= seconds])


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
    temporary.write_text(json.dumps({**vars(attempt), "machine": machine()}, indent=1) + "\n", encoding="utf-8")
    temporary.replace(file)


def read(folder: Path) -> list[Attempt]:
    """Return the attempts that the folder has."""
    attempts = []
    for file in sorted(folder.glob("*.json")):
        known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        known.pop("machine")
        attempts.append(Attempt(**{**known, "points": [tuple(point) for point in known["points"]]}))
    return attempts


RECIPES = {
    "tutorial": "a constant learning rate, on unchanged images as in tutorials",
    "same": "one learning-rate cycle, on mirrored images too",
}
HEAD = """# A race of searches

Written by `python -m benchmarks.tuning.race --minutes {minutes:g} --recipe {recipe} --publish`. All contestants had
the same search space and network (experiments/tune_cnn.yaml), the same 54,000 training and 6,000 validation images, and
the same {minutes:g} minutes from the start of their process. They ran one at a time on a shared machine.

The platform trains as its experiment file says: Muon, one learning-rate cycle, mirrored images, bfloat16, batches of
256, two trials at once. The peers are in benchmarks/peers/. With the recipe `{recipe}` they train in float32 with SGD,
batches of 128 and {peers}, one trial at a time on both cores. The
race does not separate the effect of the recipe from that of the search.

Accuracy is in percent of the validation images, mean ± standard deviation over the attempts; the standard error of one
score is 0.3 percentage points. {bar}

Machine: {machine}.

| contestant | attempts | best accuracy | trials | seconds to the plain script's best |
|---|---:|---:|---:|---:|
"""


def page(attempts: Sequence[Attempt], recipe: str, minutes: float) -> str:
    """Return the text of docs/tune_race.md without its figure."""
    plain = [attempt.best for attempt in attempts if attempt.contestant == PLAIN]
    goal = statistics.mean(plain) if plain else None
    reached = f"reached {100 * goal:.2f} % on average at the end" if goal else "has not run yet"
    bar = f"The plain Optuna script {reached}."
    text = HEAD.format(minutes=minutes, recipe=recipe, peers=RECIPES[recipe], machine=machine(), bar=bar)
    for name in CONTESTANTS:
        mine = [attempt for attempt in attempts if attempt.contestant == name]
        if mine:
            seconds = [attempt.reaches(goal) for attempt in mine] if goal else []
            times = ", ".join("never" if each is None else f"{each:.0f}" for each in seconds)
            best = spread([100 * attempt.best for attempt in mine], 2)
            trials = spread([attempt.trials for attempt in mine], 0)
            text += f"| {name} | {len(mine)} | {best} | {trials} | {times} |\n"
    return text


def curves(attempts: Sequence[Attempt], minutes: float) -> Figure:
    """Draw the best validation accuracy so far of each attempt against wall-clock time."""
    figure = Figure(figsize=(9, 5.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(CONTESTANTS):
        mine = [attempt for attempt in attempts if attempt.contestant == name]
        for attempt in mine:
            steps = attempt.curve()
            if steps:
                steps.append((attempt.seconds, attempt.best))
                seconds, accuracies = zip(*steps, strict=True)
                label = name if attempt is mine[0] else None
                style = {"color": f"C{place}", "linewidth": 2.4 if name == OURS else 1.3, "label": label}
                axes.step([s / 60 for s in seconds], [100 * a for a in accuracies], where="post", **style)
    bests = [100 * attempt.best for attempt in attempts if attempt.points]
    if bests:
        axes.set_ylim(max(0, min(bests) - 5), max(bests) + 0.5)
    axes.set(xlabel="minutes since the start of the process", ylabel="best validation accuracy so far, %")
    axes.set(xlim=(0, minutes), title="Searches with the same space, images and time")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


def machine() -> str:
    return f"{os.cpu_count()} cores of {processor()}; Python {platform.python_version()}"


if __name__ == "__main__":
    main()
