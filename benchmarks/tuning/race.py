"""A race of searches: the same space, the same images, the same wall-clock budget; who has the best network when?

Contestants: this platform (`fmnist-exp tune --experiment tune_cnn`) and those of benchmarks/peers/, whose docstrings
say what each does. The clock starts with the process, imports included, and an epoch counts when it was measured.
What is in the folder is not run again: stop it and start it as you like. KerasTuner comes with `make race`.
Usage: python benchmarks/tune_race.py [CONTESTANT …] [--minutes 10] [--repeats 3] [--recipe tutorial|same] [--publish]
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks.reporting import processor, spread

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
OURS, PLAIN = "fmnist_exp", "plain_optuna"
CONTESTANTS = (OURS, PLAIN, "hyperband", "random_search", "one_epoch_top_k")
PATIENCE = 300  # seconds after its budget in which a contestant may put its things in order


@dataclass(frozen=True)
class Leg:
    """One contestant's one attempt: seconds since its start, trial, validation accuracy of each epoch in the budget."""

    contestant: str
    repeat: int
    seconds: float  # its budget
    points: list[tuple[float, int, float]]

    @property
    def best(self) -> float:
        return max((accuracy for _, _, accuracy in self.points), default=0.0)

    @property
    def trials(self) -> int:
        return len({trial for _, trial, _ in self.points})

    def curve(self) -> list[tuple[float, float]]:
        """When a new best came, and how good it was."""
        best, steps = 0.0, []
        for seconds, _, accuracy in sorted(self.points):
            if accuracy > best:
                best = accuracy
                steps.append((seconds, accuracy))
        return steps

    def reaches(self, accuracy: float) -> float | None:
        """Seconds until so much accuracy."""
        return next((seconds for seconds, best in self.curve() if best >= accuracy), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contestants", nargs="*", metavar="CONTESTANT", help=", ".join(CONTESTANTS))
    parser.add_argument("--minutes", type=float, default=10.0, help="of each attempt")
    parser.add_argument("--repeats", type=int, default=3, help="attempts of each contestant, each with its own seed")
    parser.add_argument("--recipe", choices=("tutorial", "same"), default="tutorial", help="how the peers fit")
    parser.add_argument("--folder", type=Path, default=PROJECT / "race", help="of the results; git ignores it")
    parser.add_argument("--publish", action="store_true", help="write docs/tune_race.md and its picture")
    given = parser.parse_args()
    chosen = given.contestants or list(CONTESTANTS)
    if unknown := set(chosen) - set(CONTESTANTS):
        parser.error(f"no contestant {min(unknown)!r}; there are {', '.join(CONTESTANTS)}")
    folder = given.folder / f"{given.recipe}-{given.minutes:g}-minutes"
    folder.mkdir(parents=True, exist_ok=True)
    for repeat in range(given.repeats):  # everyone's first attempt comes before anyone's second
        for name in chosen:
            file = folder / f"{name}-{repeat}.json"
            if not file.exists():
                print(f"{name}, attempt {repeat + 1} of {given.repeats}, {given.minutes:g} minutes", flush=True)
                write(run(name, repeat, 60 * given.minutes, given.recipe), file)
    legs = read(folder)
    text = table(legs, given.recipe, given.minutes)
    print(text)
    curves(legs, given.minutes).savefig(folder / "curves.png")
    (folder / "table.md").write_text(text, encoding="utf-8")
    if given.publish:
        shutil.copy(folder / "curves.png", PROJECT / "docs" / "pictures" / "tune-race.png")
        page = f"{text}\n![Best validation accuracy over time](pictures/tune-race.png)\n"
        (PROJECT / "docs" / "tune_race.md").write_text(page, encoding="utf-8")


def run(name: str, repeat: int, seconds: float, recipe: str) -> Leg:
    """One attempt, in an empty folder with a tracking store of its own."""
    with tempfile.TemporaryDirectory(prefix="race-") as work:
        notes = Path(work) / "notes.jsonl"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{work}/mlflow.db", "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment["PYTHONPATH"] = os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])
        environment["RACE_START"] = str(start := time.time())
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
        points = tracked(work, start) if name == OURS else noted(notes)
        if code not in (0, None):
            raise SystemExit(f"{name} ended with {code} and {len(points)} epochs:\n{log.read_text()[-3000:]}")
    return Leg(name, repeat, seconds, [point for point in points if point[0] <= seconds])


def command(name: str, repeat: int, seconds: float, recipe: str, notes: Path) -> list[str]:
    if name == OURS:
        fields = {"seed": repeat, "data.split_seed": 0, "search.n_trials": 100_000, "search.timeout": seconds / 60}
        options = [word for field, value in fields.items() for word in (f"--{field}", str(value))]
        return [sys.executable, "-m", "fmnist_exp", "tune", "--experiment", "tune_cnn", *options]
    options = ["--seconds", str(seconds), "--seed", str(repeat), "--recipe", recipe, "--notes", str(notes)]
    return [sys.executable, str(HERE / "peers" / f"{name}.py"), *options]


def wait(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    """The exit code; None if it had to be stopped, long after its time."""
    try:
        return process.wait(seconds + PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def noted(file: Path) -> list[tuple[float, int, float]]:
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [(line["seconds"], line["trial"], line["val_accuracy"]) for line in lines]


def tracked(work: str, start: float) -> list[tuple[float, int, float]]:
    """Our epochs, from what the search left in MLflow."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{work}/mlflow.db")
    points = []
    for run in client.search_runs(["0"], "tags.`fmnist.kind` = 'trial'", max_results=1000):
        number = int(run.data.tags["fmnist.trial"])
        for metric in client.get_metric_history(run.info.run_id, "val_accuracy"):
            points.append((metric.timestamp / 1000 - start, number, metric.value))
    return points


def write(leg: Leg, file: Path) -> None:
    """Whole or not at all: an attempt that is cut off while it is written is made again."""
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps({**vars(leg), "machine": machine()}, indent=1) + "\n", encoding="utf-8")
    temporary.replace(file)


def read(folder: Path) -> list[Leg]:
    found = []
    for file in sorted(folder.glob("*.json")):
        known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        known.pop("machine")
        found.append(Leg(**{**known, "points": [tuple(point) for point in known["points"]]}))
    return found


RECIPES = {
    "tutorial": "a constant learning rate and the images as they are, as tutorials have it",
    "same": "one cycle and mirrored images too",
}
HEAD = """# A race of searches

Written by `python benchmarks/tune_race.py --minutes {minutes:g} --recipe {recipe} --publish`. The same search space
and network (experiments/tune_cnn.yaml), the same 54,000 training and 6,000 validation images, the same {minutes:g}
minutes from the start of the process, one contestant at a time on a shared machine.

The platform fits as its experiment says: Muon, one cycle of the learning rate, mirrored images, bfloat16, batches of
256, two trials at once. The peers are in benchmarks/peers/. Their recipe is `{recipe}`: float32, SGD with batches of
128, {peers}, one trial at a time on both cores. What the recipe gives and
what the search gives is not told apart here. Percent of the validation images, mean ± standard deviation over attempts;
one standard error of such a score is 0.3. {bar}

Machine: {machine}.

| contestant | attempts | best accuracy | trials | seconds to the plain script's best |
|---|---:|---:|---:|---:|
"""


def table(legs: Sequence[Leg], recipe: str, minutes: float) -> str:
    plain = [leg.best for leg in legs if leg.contestant == PLAIN]
    goal = statistics.mean(plain) if plain else None
    bar = f"The plain script's best: {100 * goal:.2f} at the end." if goal else "The plain script has not run yet."
    text = HEAD.format(minutes=minutes, recipe=recipe, peers=RECIPES[recipe], machine=machine(), bar=bar)
    for name in CONTESTANTS:
        own = [leg for leg in legs if leg.contestant == name]
        if own:
            times = [leg.reaches(goal) for leg in own] if goal else []
            reached = ", ".join("never" if seconds is None else f"{seconds:.0f}" for seconds in times)
            best, trials = spread([100 * leg.best for leg in own], 2), spread([leg.trials for leg in own], 0)
            text += f"| {name} | {len(own)} | {best} | {trials} | {reached} |\n"
    return text


def curves(legs: Sequence[Leg], minutes: float) -> Figure:
    """Best validation accuracy so far of each attempt, by wall-clock time."""
    figure = Figure(figsize=(9, 5.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(CONTESTANTS):
        for leg in [leg for leg in legs if leg.contestant == name]:
            steps = leg.curve()
            if steps:
                steps.append((leg.seconds, leg.best))
                seconds, accuracies = zip(*steps, strict=True)
                label = name if leg.repeat == min(one.repeat for one in legs if one.contestant == name) else None
                style = {"color": f"C{place}", "linewidth": 2.4 if name == OURS else 1.3, "label": label}
                axes.step([s / 60 for s in seconds], [100 * a for a in accuracies], where="post", **style)
    bests = [100 * leg.best for leg in legs if leg.points]
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
