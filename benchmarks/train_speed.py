"""How fast networks are fitted here, beside the machine's peak and plain Keras, and how soon they are good.

Throughput: every contestant is a process of its own that stands still between its turns; they take turns, round after
round, with matrix products among them. Images per second of training steps; validation is not in them. The share of
the peak is 6 floating-point operations per multiply-add and image, 4 in the layer that sees the image, over the
bfloat16 matrix products of the same rounds.
Accuracy (hours; stop it and start it as you like): whole fits, kept in --store.
Usage: python benchmarks/train_speed.py [--quick] [--table-only] [--rounds 3] [--seconds 2] [--contestants NAME …]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import train_fits
from contestants import CONTESTANTS
from rich.console import Console
from rich.table import Table
from train_fits import Reached

HERE = Path(__file__).resolve().parent
WANTED = 0.93  # on the test set
SEEDS = (0, 1, 2)
HOUR = 3600  # seconds
LIMIT = 2048  # MiB, for the whole process of a run of cnn
PEAK = "bfloat16"
# what is asked of throughput: a share of the peak, or a ratio to another contestant
SHARES = {"cnn": 0.6}
RATIOS = {("mlp", "funnel_mlp_keras"): 3.0, ("cnn", "cnn_stock"): None, ("deep_cnn", "deep_cnn_keras"): None}
ACCURACIES = {"cnn_fast": 0.93, "cnn_95": 0.95}  # on the test set, mean of the seeds
# what is fitted whole: kind, name, seeds
FITS = [
    *[("platform", "cnn_fast", seed) for seed in SEEDS],
    *[("stock", "cnn_fast", seed) for seed in SEEDS],
    ("platform", "mlp", 0),
    ("peer", "funnel_mlp_keras", 0),
    ("peer", "deep_cnn_keras", 0),
    *[("platform", "cnn_95", seed) for seed in SEEDS],
]

console = Console(width=120)


@dataclass
class Measured:
    """One contestant: what it said of itself, and a rate per round (images or floating-point operations a second)."""

    notes: dict[str, Any]
    rates: list[float] = field(default_factory=list)
    mebibytes: float = 0.0

    def flops(self) -> float:
        return statistics.mean(self.rates) * float(self.notes["flop"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="throughput only: less than five minutes")
    parser.add_argument("--table-only", action="store_true", help="measure nothing: what the store has")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="of steps per turn, at least")
    parser.add_argument("--contestants", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    parser.add_argument("--store", type=Path, default=HERE.parent / "bench-train", help="what was measured")
    arguments = parser.parse_args()
    store = arguments.store.resolve()
    store.mkdir(parents=True, exist_ok=True)
    if not arguments.table_only:
        measured = throughput(arguments.contestants, arguments.rounds, arguments.seconds)
        write(store, "throughput", {name: vars(found) for name, found in measured.items()})
    if not arguments.quick and not arguments.table_only:
        write(store, "start", fixed_costs("cnn", store))
        with tempfile.TemporaryDirectory() as folder:
            short = ("training.epochs", "1")
            write(store, "memory", vars(train_fits.platform(Path(folder), "cnn", 0, short)))
        fit_all(store)
    report_throughput({name: Measured(**found) for name, found in read(store, "throughput").items()})
    report_costs(store)
    report_accuracy(store)


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
        if kind == "peer":
            train_fits.peer(store, name, seed, WANTED)
        else:
            (train_fits.stock if kind == "stock" else train_fits.platform)(store, name, seed)
        report_accuracy(store)


def report_throughput(measured: dict[str, Measured]) -> None:
    peak = measured[PEAK].flops() if PEAK in measured else float("nan")
    table = Table(title="Training steps: mean ± standard deviation over n rounds")
    for column in ("", "n", "images/s", "batch", "MFLOP/image", "GFLOP/s", "of the bfloat16 peak", "MiB", "wanted"):
        table.add_column(column, justify="right" if column else "left")
    for name, found in measured.items():
        share = found.flops() / peak
        product = found.notes["batch"] == 0
        own = [] if product else [spread(found.rates, 0), found.notes["batch"], f"{found.notes['flop'] / 1e6:.1f}"]
        scale = found.notes["flop"] / 1e9
        speed = spread([rate * scale for rate in found.rates], 1)
        wanted = f"at least {SHARES[name]:.0%}" if name in SHARES else ""
        columns = [len(found.rates), *(own or ["", "", ""]), speed, f"{share:.1%}", f"{found.mebibytes:,.0f}", wanted]
        table.add_row(CONTESTANTS[name].label, *map(str, columns))
    console.print(table)
    for (name, other), least in RATIOS.items():
        if name in measured and other in measured:
            ratios = [a / b for a, b in zip(measured[name].rates, measured[other].rates, strict=True)]
            wanted = f" (wanted: at least {least:g})" if least else ""
            labels = f"{CONTESTANTS[name].label} / {CONTESTANTS[other].label}"
            console.print(f"{labels}: {spread(ratios, 2)} times the images/s, n = {len(ratios)}{wanted}")
    for name in ("float32", PEAK):
        if name in measured and measured[name].rates:
            before, *_, after = [rate / 1e9 for rate in [*measured[name].rates, measured[name].rates[-1]]]
            console.print(f"{CONTESTANTS[name].label}: {before:.1f} GFLOP/s before, {after:.1f} after")


def report_costs(store: Path) -> None:
    memory, costs = read(store, "memory"), read(store, "start")
    if memory:
        console.print(
            f"A whole run of cnn with one epoch: peak {memory['mebibytes']:,.0f} MiB (wanted: at most {LIMIT:,}),"
            f" {memory['wall']:.1f} s from start to end"
        )
    if costs:
        table = Table(title="A run of cnn, from the process' start to its first step")
        table.add_column("")
        table.add_column("s", justify="right")
        for phase, seconds in [*costs.items(), ("sum", sum(costs.values()))]:
            table.add_row(phase, f"{seconds:.2f}")
        console.print(table)


def report_accuracy(store: Path) -> None:
    found: dict[tuple[str, str], list[Reached]] = {}
    missing = []
    for kind, name, seed in FITS:
        reached = train_fits.known(store, name, seed, kind, WANTED)
        if reached:
            found.setdefault((kind, name), []).append(reached)
        else:
            missing.append(f"{name} ({kind}, seed {seed})")
    table = Table(title=f"Whole fits; a peer's seconds are those to {WANTED:.1%} on the test set, or to its best epoch")
    for column in ("", "n", "fitting, s", "validation, %", "test, %", "wanted, %", "peak, MiB"):
        table.add_column(column, justify="right" if column else "left")
    for (kind, name), fits in found.items():
        label = {"platform": "", "stock": ", float32, stock layers, fit's defaults", "peer": ""}[kind]
        memory = max((fit.mebibytes or 0 for fit in fits), default=0)
        table.add_row(
            name + label,
            str(len(fits)),
            spread([fit.seconds for fit in fits], 1),
            spread([100 * fit.val_accuracy for fit in fits], 2),
            spread([100 * fit.test_accuracy for fit in fits], 2),
            f"{100 * ACCURACIES[name]:.1f}" if kind == "platform" and name in ACCURACIES else "",
            f"{memory:,.0f}" if memory else "",
        )
    console.print(table)
    for sentence, reached in verdicts(found):
        console.print(f"{sentence}: {'reached' if reached else 'missed'}")
    console.print(f"Missing: {', '.join(missing)}" if missing else "Nothing is missing.")


def verdicts(found: dict[tuple[str, str], list[Reached]]) -> list[tuple[str, bool]]:
    """What is wanted of whole fits, and whether it was reached, as far as they are there."""
    accuracy = {key: statistics.mean(fit.test_accuracy for fit in fits) for key, fits in found.items()}
    seconds = {key: statistics.mean(fit.seconds for fit in fits) for key, fits in found.items()}
    fast, mlp, funnel = ("platform", "cnn_fast"), ("platform", "mlp"), ("peer", "funnel_mlp_keras")
    said = []
    for name, least in ACCURACIES.items():
        if (key := ("platform", name)) in found:
            said.append((f"{name}: {accuracy[key]:.2%} on the test set, wanted {least:.1%}", accuracy[key] >= least))
    for key, times in ((("peer", "deep_cnn_keras"), 15), (("stock", "cnn_fast"), 2)):
        if fast in found and key in found:
            ratio = seconds[key] / seconds[fast]
            said.append((f"{key[1]} ({key[0]}): {ratio:.1f} times as long as cnn_fast, wanted {times}", ratio >= times))
    if (slow := ("platform", "cnn_95")) in found:
        longest = max(fit.seconds for fit in found[slow])
        said.append((f"cnn_95: {longest / 60:.0f} minutes, wanted {HOUR // 60} at most", longest <= HOUR))
    if mlp in found and funnel in found:
        better = accuracy[mlp] >= accuracy[funnel]
        said.append((f"mlp: {accuracy[mlp]:.2%} on the test set, wanted {accuracy[funnel]:.2%}, the peer's", better))
    return said


def spread(values: Sequence[float], digits: int) -> str:
    mean = f"{statistics.mean(values):,.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def read(store: Path, name: str) -> dict[str, Any]:
    file = store / f"{name}.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def write(store: Path, name: str, what: Any) -> None:
    (store / f"{name}.json").write_text(json.dumps(what, indent=1))


if __name__ == "__main__":
    main()
