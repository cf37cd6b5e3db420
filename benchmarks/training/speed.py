"""Compare the speed of training with the machine's peak and with plain Keras, and the accuracies of whole fits.

Throughput is the number of images per second in training steps, without validation. Each contestant is a process of
its own; they take turns, round after round, with matrix products among them, and stand still between their turns. The
share of the peak is the network's floating-point operations (6 per multiply-add and image, 4 in the layer that sees the
image) relative to the bfloat16 matrix products of the same rounds.
The whole fits take hours and are kept in --store. Stop them at any time; --fits-only makes those that are missing.
Usage: python -m benchmarks.training.speed [--quick | --fits-only | --table-only | --contestants NAME …] [--rounds 3]
"""

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dask.system import cpu_count

from benchmarks import processes
from benchmarks.reporting import bfloat16_unit, processor
from benchmarks.training import fits, report
from benchmarks.training.contestants import CONTESTANTS
from benchmarks.training.report import FLOAT32, PEAK, Measured, console


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    less = parser.add_mutually_exclusive_group()
    less.add_argument("--quick", action="store_true", help="measure only the throughput (five minutes)")
    less.add_argument("--fits-only", action="store_true", help="make only the whole fits that are missing")
    less.add_argument("--table-only", action="store_true", help="print what the store has and measure nothing")
    names = ", ".join(CONTESTANTS)
    some = f"measure only these, and keep nothing: {names}"
    less.add_argument("--contestants", nargs="+", choices=list(CONTESTANTS), metavar="NAME", help=some)
    parser.add_argument("--rounds", type=int, default=3, help="number of turns of each contestant")
    parser.add_argument("--seconds", type=float, default=2.0, help="least number of seconds of training steps per turn")
    parser.add_argument("--store", type=Path, default=processes.PROJECT / "bench-train", help="folder of the results")
    return parser


def main() -> None:
    arguments = parser().parse_args()
    if arguments.rounds < 1:
        parser().error("--rounds: at least 1")
    if arguments.contestants:
        report.show_throughput(throughput(arguments.contestants, arguments.rounds, arguments.seconds))
        return
    store = arguments.store.resolve()
    store.mkdir(parents=True, exist_ok=True)
    if not arguments.table_only:
        check_machine(store, machine())
    if not arguments.table_only and not arguments.fits_only:
        measured = throughput(list(CONTESTANTS), arguments.rounds, arguments.seconds)
        write(store, "throughput", {name: vars(found) for name, found in measured.items()})
    if not (arguments.quick or arguments.table_only or arguments.fits_only):
        write(store, "start", fixed_costs("cnn", store))
        with tempfile.TemporaryDirectory() as folder:
            short = fits.platform(Path(folder), "cnn", 0, {"training.epochs": "1"})
            write(store, "memory", vars(short))
    if not arguments.quick and not arguments.table_only:
        fit_all(store)
    show(store)


class Process:
    """A contestant: a process that has warmed up and waits for its turn."""

    def __init__(self, name: str) -> None:
        started = time.perf_counter()  # all processes of a machine share this clock
        self.process = subprocess.Popen(
            processes.python("benchmarks.training.contestants", name, started),
            cwd=processes.PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.measured = Measured(self.receive())
        console.print(f"{name} is warm after {self.measured.notes['ready']:.1f} s")

    def receive(self) -> dict[str, Any]:
        """Return the next message of the process. Raises SystemExit if it has ended."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(map(str, self.process.args))} ended")  # type: ignore[arg-type]
        answer: dict[str, Any] = json.loads(line)
        return answer

    def take_turn(self, seconds: float) -> None:
        """Let the contestant measure for some seconds."""
        assert self.process.stdin
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        answer = self.receive()
        self.measured.rates.append(answer["work"] / answer["seconds"])
        self.measured.mebibytes = answer["mebibytes"]

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def throughput(names: Sequence[str], rounds: int, seconds: float) -> dict[str, Measured]:
    """Let each contestant take one turn per round; the matrix products take one more turn at the end."""
    contestants = {name: Process(name) for name in names}
    for number in range(1, rounds + 1):
        for process in contestants.values():
            process.take_turn(seconds)
        console.print(f"round {number} of {rounds} is done")
    for name in (FLOAT32, PEAK):
        if name in contestants:
            contestants[name].take_turn(seconds)
    for process in contestants.values():
        process.end()
    return {name: process.measured for name, process in contestants.items()}


def machine() -> dict[str, Any]:
    """Return the description of this machine that is kept with the results."""
    return {"cores": cpu_count(), "processor": processor(), "bfloat16": bfloat16_unit()}


def check_machine(store: Path, here: dict[str, Any]) -> None:
    """Record the machine in the store. Raises SystemExit if the store has results of another machine."""
    known = read(store, "machine")
    if known not in ({}, here):
        raise SystemExit(f"{store} was measured on {known['cores']} cores, {known['processor']}: take another --store")
    write(store, "machine", here)


def fixed_costs(name: str, store: Path) -> dict[str, float]:
    """Return the seconds of each phase until the first step, of the second of two processes (files are cached then)."""
    for _ in range(2):
        command = processes.python("benchmarks.training.start", name, time.perf_counter())
        environment = processes.environment(store)
        done = subprocess.run(command, cwd=store, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    costs: dict[str, float] = json.loads(done.stdout)
    return costs


def fit_all(store: Path) -> None:
    """Make the whole fits that the store lacks."""
    for kind, name, seed in fits.FITS:
        if fits.known(store, kind, name, seed):
            continue
        fit = fits.fit(store, kind, name, seed)
        console.print(f"{name} ({kind}, seed {seed}): {fit.seconds:.1f} s, {fit.test_accuracy:.2%} on the test set")


def show(store: Path) -> None:
    """Print everything that the store has."""
    report.show_machine(read(store, "machine"))
    report.show_throughput({name: Measured(**found) for name, found in read(store, "throughput").items()})
    report.show_costs(read(store, "start"), read(store, "memory"))
    report.show_fits(*fits.known_fits(store))


def read(store: Path, name: str) -> dict[str, Any]:
    file = store / f"{name}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def write(store: Path, name: str, result: Any) -> None:
    (store / f"{name}.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
