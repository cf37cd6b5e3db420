"""Compare searches with the same space, images and wall-clock budget: how good is the best network, and when?

The contestants are this platform (`fmnist-exp tune --experiment tune_cnn`) and the programs of benchmarks/peers/, which
their docstrings describe. The clock starts with the process, imports included; an epoch counts when it was measured.
The peers run twice, with two ways of fitting: `same` is the platform's recipe, `tutorial` is their own.
Each attempt is a line of docs/race.jsonl. It is not repeated while that file has it for this code, these libraries and
this machine, so the command can be stopped and repeated. `make race` installs KerasTuner first.
Usage: python -m benchmarks.tuning.race [CONTESTANT …] [--minutes 10] [--repeats 3] [--recipe same|tutorial]
"""

import argparse
import hashlib
import os
import signal
import subprocess
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks import processes, records
from benchmarks.processes import PROJECT
from benchmarks.reporting import bfloat16_unit
from benchmarks.runs import DETERMINING, Version, code_digest, here
from benchmarks.tuning.race_page import CONTESTANTS, FINAL, OURS, RECIPES, Attempt, Point, curves, page
from fmnist_exp.config import files
from fmnist_exp.tracking.names import Metric, Tag

PEERS = PROJECT / "benchmarks" / "peers"
DOCS = PROJECT / "docs"
FILE = DOCS / "race.jsonl"
EXPERIMENT = "tune_cnn"
PATIENCE = 300  # seconds that a contestant has after its budget to end by itself


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contestants", nargs="*", metavar="CONTESTANT", help=", ".join(CONTESTANTS))
    parser.add_argument("--minutes", type=float, default=10.0, help="budget of each attempt")
    parser.add_argument("--repeats", type=int, default=3, help="attempts of each contestant, each with its own seed")
    parser.add_argument("--recipe", choices=RECIPES, help="only this way in which the peers fit (default: both)")
    parser.add_argument("--page-only", action="store_true", help="make no attempt, only write docs/tune_race.md")
    return parser


def main() -> None:
    """Make the attempts that are missing, and write the page after each."""
    given = parser().parse_args()
    chosen = given.contestants or list(CONTESTANTS)
    if unknown := set(chosen) - set(CONTESTANTS):
        parser().error(f"no contestant {min(unknown)!r}; there are {', '.join(CONTESTANTS)}")
    version, seconds = here(), 60 * given.minutes
    publish(version, seconds)
    for repeat in range(0 if given.page_only else given.repeats):  # the first attempts of all contestants come first
        for recipe in [given.recipe] if given.recipe else RECIPES:
            for name in chosen:
                attempt = Attempt(name, "" if name == OURS else recipe, repeat, seconds, *identity(version, name))
                if attempt.key not in {known.key for known in read(FILE)}:
                    print(f"{attempt.label}, repeat {repeat}: {given.minutes:g} minutes", flush=True)
                    records.append(FILE, asdict(run(attempt)))
                    publish(version, seconds)


def identity(version: Version, name: str) -> tuple[str, str]:
    """Return the digest of what determines a contestant's attempts, and the machine."""
    ours = name == OURS
    content = [version.conditions[Tag.LIBRARIES], files.load(EXPERIMENT).to_yaml()]
    content.append(code_digest(version.commit, (*DETERMINING, "tuning") if ours else DETERMINING))
    rules = [Path(__file__), *([] if ours else sorted(PEERS.glob("*.py")))]
    content += [file.read_text(encoding="utf-8") for file in rules]
    digest = hashlib.sha256("\n".join(content).encode()).hexdigest()[:12]
    return digest, f"{version.machine()}, bfloat16: {bfloat16_unit()}; {version.conditions[Tag.BACKEND]}"


def publish(version: Version, seconds: float) -> None:
    """Write the page and its figure from the attempts of this code with this budget, on any machine."""
    digests = {name: identity(version, name)[0] for name in CONTESTANTS}
    shown = [each for each in read(FILE) if each.version == digests[each.contestant] and each.seconds == seconds]
    text = page(shown, seconds / 60, version.software())
    if shown:
        curves(shown, seconds / 60).savefig(DOCS / "pictures" / "tune-race.png")
        text += "\n![Best validation accuracy over time](pictures/tune-race.png)\n"
    (DOCS / "tune_race.md").write_text(text, encoding="utf-8")


def run(attempt: Attempt) -> Attempt:
    """Make an attempt in an empty folder with a tracking store of its own, and return it with its points."""
    with tempfile.TemporaryDirectory(prefix="race-") as work:
        notes = Path(work) / "notes.jsonl"
        environment = processes.environment(Path(work)) | {"RACE_START": str(start := time.time())}
        log = Path(work) / "log.txt"
        with log.open("w") as output:
            process = subprocess.Popen(
                command(attempt, notes),
                cwd=work,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            code = wait(process, attempt.seconds)
        found = tracked(Path(work), start) if attempt.contestant == OURS else noted(notes)
        if code not in (0, None):
            raise SystemExit(f"{attempt.label} ended with {code} after {len(found)} epochs:\n{log.read_text()[-3000:]}")
    return replace(attempt, points=[point for point in found if point[0] <= attempt.seconds])


def command(attempt: Attempt, notes: Path) -> list[str]:
    """Return the command of an attempt. The platform's is that of a user who changes the time limit alone."""
    if attempt.contestant == OURS:
        own = {"seed": attempt.repeat, "data.split_seed": 0, "search.timeout": attempt.seconds / 60}
        return processes.python("fmnist_exp", "tune", *processes.options({"experiment": EXPERIMENT, **own}))
    given = {"seconds": attempt.seconds, "seed": attempt.repeat, "recipe": attempt.recipe, "notes": notes}
    return processes.python(f"benchmarks.peers.{attempt.contestant}", *processes.options(given))


def wait(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    """Return the exit code; None if the process had to be killed, long after its time."""
    try:
        return process.wait(seconds + PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return None


def noted(file: Path) -> list[Point]:
    """Return the points of a peer, from its notes."""
    return [(round(line["seconds"], 1), line["trial"], round(line["val_accuracy"], 6)) for line in records.read(file)]


def tracked(folder: Path, start: float) -> list[Point]:
    """Return the points of the platform, from its runs in MLflow: those of the trials and of the final fit.

    The network of the final fit is judged as it is logged, with the averages over its answers that `final` names.
    """
    import mlflow

    client = mlflow.MlflowClient(processes.store(folder))
    points = []
    for run in client.search_runs(["0"], max_results=1000):
        tags = run.data.tags
        if (is_final := Tag.FINAL_OF in tags) or tags[Tag.KIND] == "trial":
            number = FINAL if is_final else int(tags[Tag.TRIAL])
            names = (Metric.VAL_ACCURACY, *([Metric.BEST_VAL_ACCURACY] if is_final else []))
            for metric in (each for name in names for each in client.get_metric_history(run.info.run_id, name)):
                points.append((round(metric.timestamp / 1000 - start, 1), number, round(metric.value, 6)))
    return sorted(points)


def read(file: Path) -> list[Attempt]:
    """Return the attempts that a file has."""
    return [Attempt(**{**known, "points": [tuple(point) for point in known["points"]]}) for known in records.read(file)]


if __name__ == "__main__":
    main()
