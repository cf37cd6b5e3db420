"""How fast networks are fitted here, beside the machine's peak and plain Keras, and how soon they are good.

Throughput: every contestant is a process of its own that stands still between its turns; they take turns, round after
round, with matrix products among them. Images per second of training steps; validation is not in them. The share of
the peak is 6 floating-point operations per multiply-add and image, 4 in the layer that sees the image, over the
bfloat16 matrix products of the same rounds.
Accuracy (hours; stop it, and go on with --fits-only): whole fits, kept in --store.
Usage: python benchmarks/train_speed.py [--quick | --fits-only | --table-only | --contestants NAME …] [--rounds 3] …
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.reporting import bfloat16_unit, processor
from benchmarks.training import fits as train_fits
from benchmarks.training import report as train_report
from benchmarks.training.contestants import CONTESTANTS
from benchmarks.training.fits import FITS
from benchmarks.training.report import PEAK, Measured, console
from fmnist_exp.backend.machine import cores

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    less = parser.add_mutually_exclusive_group()
    less.add_argument("--quick", action="store_true", help="throughput only: less than five minutes")
    less.add_argument("--fits-only", action="store_true", help="whole fits only, those that are missing")
    less.add_argument("--table-only", action="store_true", help="measure nothing: what the store has")
    names = ", ".join(CONTESTANTS)
    less.add_argument(
        "--contestants", nargs="+", choices=list(CONTESTANTS), metavar="NAME", help=f"of {names}; nothing is kept"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of steps per turn, at least")
    parser.add_argument("--store", type=Path, default=HERE.parent / "bench-train", help="what was measured")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds: at least 1")
    if arguments.contestants:
        train_report.show_throughput(throughput(arguments.contestants, arguments.rounds, arguments.seconds))
        return
    store = arguments.store.resolve()
    store.mkdir(parents=True, exist_ok=True)
    if not arguments.table_only:
        keep_to(store, machine())
    if not arguments.table_only and not arguments.fits_only:
        measured = throughput(list(CONTESTANTS), arguments.rounds, arguments.seconds)
        write(store, "throughput", {name: vars(found) for name, found in measured.items()})
    if not (arguments.quick or arguments.table_only or arguments.fits_only):
        write(store, "start", fixed_costs("cnn", store))
        with tempfile.TemporaryDirectory() as folder:
            short = train_fits.platform(Path(folder), "cnn", 0, {"training.epochs": "1"})
            write(store, "memory", vars(short))
    if not arguments.quick and not arguments.table_only:
        fit_all(store)
    report(store)


class Process:
    """A contestant, started and warm."""

    def __init__(self, name: str) -> None:
        began = str(time.perf_counter())  # one clock for all processes of a machine
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "contestants.py"), name, began],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.measured = Measured(self.hear())
        console.print(f"{name} is warm after {self.measured.notes['ready']:.1f} s")

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(map(str, self.process.args))} ended")  # type: ignore[arg-type]
        answer: dict[str, Any] = json.loads(line)
        return answer

    def take_turn(self, seconds: float) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        answer = self.hear()
        self.measured.rates.append(answer["work"] / answer["seconds"])
        self.measured.mebibytes = answer["mebibytes"]

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def throughput(names: Sequence[str], rounds: int, seconds: float) -> dict[str, Measured]:
    """Every contestant once per round; the first round's matrix products come before, the last one's again after."""
    processes = {name: Process(name) for name in names}
    for number in range(1, rounds + 1):
        for process in processes.values():
            process.take_turn(seconds)
        console.print(f"round {number} of {rounds} is done")
    for name in ("float32", PEAK):
        if name in processes:
            processes[name].take_turn(seconds)
    for process in processes.values():
        process.end()
    return {name: process.measured for name, process in processes.items()}


def machine() -> dict[str, Any]:
    """What the figures are of."""
    return {"cores": cores(), "processor": processor(), "bfloat16": bfloat16_unit()}


def keep_to(store: Path, here: dict[str, Any]) -> None:
    """A store is of one machine; SystemExit if it is of another."""
    there = read(store, "machine")
    if there not in ({}, here):
        raise SystemExit(f"{store} was measured on {there['cores']} cores, {there['processor']}: take another --store")
    write(store, "machine", here)


def fixed_costs(name: str, store: Path) -> dict[str, float]:
    """Seconds of each phase from start to first step; the second of two processes, when files are in memory."""
    for _ in range(2):
        began = str(time.perf_counter())
        script = [sys.executable, str(HERE / "train_start.py"), name, began]
        settings = train_fits.settings(store)
        done = subprocess.run(script, cwd=store, env=settings, stdout=subprocess.PIPE, text=True, check=True)
    costs: dict[str, float] = json.loads(done.stdout)
    return costs


def fit_all(store: Path) -> None:
    for kind, name, seed in FITS:
        if train_fits.known(store, kind, name, seed):
            continue
        found = train_fits.fit(store, kind, name, seed)
        console.print(f"{name} ({kind}, seed {seed}): {found.seconds:.1f} s, {found.test_accuracy:.2%} on the test set")


def report(store: Path) -> None:
    """Everything in the store."""
    train_report.show_machine(read(store, "machine"))
    train_report.show_throughput({name: Measured(**found) for name, found in read(store, "throughput").items()})
    train_report.show_costs(read(store, "start"), read(store, "memory"))
    train_report.show_fits(*train_fits.known_fits(store))


def read(store: Path, name: str) -> dict[str, Any]:
    file = store / f"{name}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def write(store: Path, name: str, what: Any) -> None:
    (store / f"{name}.json").write_text(json.dumps(what, indent=1))


if __name__ == "__main__":
    main()
