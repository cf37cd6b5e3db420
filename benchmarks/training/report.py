"""The tables and verdicts that benchmarks/train_speed.py prints of what it measured."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.reporting import spread
from benchmarks.training.contestants import CONTESTANTS
from benchmarks.training.fits import WANTED, Fit, Fitted

HOUR = 3600  # seconds
MEMORY_LIMIT = 2048  # MiB, for the whole process of a run of cnn
PEAK = "bfloat16"
# what is asked of throughput: a share of the peak, or a ratio to another contestant
SHARES = {"cnn": 0.6}
RATIOS = {("mlp", "funnel_mlp_keras"): 3.0, ("cnn", "cnn_stock"): None, ("deep_cnn", "deep_cnn_keras"): None}
ACCURACIES = {"cnn_fast": 93.0, "cnn_95": 95.0}  # percent on the test set, mean of the seeds
TIMES_AS_LONG = {("peer", "deep_cnn_keras"): 15, ("stock", "cnn_fast"): 2}  # as long as cnn_fast, at least

FitsBySeed = Mapping[Fitted, Mapping[int, Fit]]
CNN_FAST = ("platform", "cnn_fast")

LABELS = {
    "platform": "",
    "float32": ", float32",
    "stock": ", float32, stock layers, fit's defaults",
    "peer": " in plain Keras",
}

console = Console(width=120)


@dataclass
class Measured:
    """One contestant: what it said of itself, and a rate per round (images or floating-point operations a second)."""

    notes: dict[str, Any]
    rates: list[float] = field(default_factory=list)
    mebibytes: float = 0.0

    def flops(self) -> float:
        return statistics.mean(self.rates) * float(self.notes["flop"])


def show_machine(notes: Mapping[str, Any]) -> None:
    if notes:
        console.print(f"Machine: {notes['cores']} cores, {notes['processor']}; bfloat16 by {notes['bfloat16']}")


def show_throughput(measured: Mapping[str, Measured]) -> None:
    if not measured:
        return
    peak = measured[PEAK].flops() if PEAK in measured else None
    table = Table(title="Training steps: mean ± standard deviation over n rounds")
    for column in ("", "n", "images/s", "batch", "MFLOP/image", "GFLOP/s", "of the bfloat16 peak", "MiB", "wanted"):
        table.add_column(column, justify="right" if column else "left")
    for name, found in measured.items():
        share = f"{found.flops() / peak:.1%}" if peak else ""
        product = found.notes["batch"] == 0
        own = [] if product else [spread(found.rates, 0), found.notes["batch"], f"{found.notes['flop'] / 1e6:.1f}"]
        scale = found.notes["flop"] / 1e9
        speed = spread([rate * scale for rate in found.rates], 1)
        wanted = f"at least {SHARES[name]:.0%}" if name in SHARES else ""
        columns = [len(found.rates), *(own or ["", "", ""]), speed, share, f"{found.mebibytes:,.0f}", wanted]
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


def show_costs(phases: Mapping[str, float], run: Mapping[str, float]) -> None:
    """Seconds from start to first step, by phase; the memory and time of a whole run of `cnn` with one epoch."""
    if run:
        console.print(
            f"A whole run of cnn with one epoch: peak {run['mebibytes']:,.0f} MiB (wanted: at most {MEMORY_LIMIT:,}),"
            f" {run['wall']:.1f} s from start to end"
        )
    if phases:
        table = Table(title="A run of cnn, from the process' start to its first step")
        table.add_column("")
        table.add_column("s", justify="right")
        for phase, seconds in [*phases.items(), ("sum", sum(phases.values()))]:
            table.add_row(phase, f"{seconds:.2f}")
        console.print(table)


def show_fits(found: FitsBySeed, missing: Sequence[str]) -> None:
    if not found:
        console.print("No whole fits yet: make bench-train makes them, in hours.")
        return
    table = Table(title=f"Whole fits; a peer's seconds are those to {WANTED:.1%} on the test set, or to its best epoch")
    for column in ("", "n", "fitting, s", "validation, %", "test, %", "wanted, %", "peak, MiB"):
        table.add_column(column, justify="right" if column else "left")
    for (kind, name), by_seed in found.items():
        fits = list(by_seed.values())
        label = LABELS[kind]
        memory = max(fit.mebibytes or 0 for fit in fits)
        table.add_row(
            name.removesuffix("_keras") + label,
            str(len(fits)),
            spread([fit.seconds for fit in fits], 1),
            spread([100 * fit.val_accuracy for fit in fits], 2),
            spread([100 * fit.test_accuracy for fit in fits], 2),
            f"{ACCURACIES[name]:.1f}" if kind == "platform" and name in ACCURACIES else "",
            f"{memory:,.0f}" if memory else "",
        )
    console.print(table)
    for sentence, reached in verdicts(found):
        console.print(f"{sentence}: {'reached' if reached else 'missed'}")
    console.print(f"Missing: {', '.join(missing)}" if missing else "Nothing is missing.")


def verdicts(found: FitsBySeed) -> list[tuple[str, bool]]:
    """What is wanted of whole fits, and whether it was reached, as far as they are there."""
    said = []
    for name, least in ACCURACIES.items():
        if fits := found.get(("platform", name)):
            scores = [100 * fit.test_accuracy for fit in fits.values()]
            sentence = f"{name}: {with_n(scores, 2)} % on the test set, wanted {least:.1f}"
            said.append((sentence, statistics.mean(scores) >= least))
    said += [verdict for key, least in TIMES_AS_LONG.items() for verdict in slower(found, key, least)]
    said += agreement(found)
    if slow := found.get(("platform", "cnn_95")):
        longest = max(fit.seconds for fit in slow.values())
        said.append((f"cnn_95: {longest:,.0f} s at most (n = {len(slow)}), wanted {HOUR:,}", longest <= HOUR))
    if pairs := same_seeds(found, ("platform", "mlp"), ("peer", "funnel_mlp_keras")):
        ours, theirs = (statistics.mean(fit.test_accuracy for fit in fits) for fits in zip(*pairs, strict=True))
        better = f"mlp: {ours:.2%} on the test set (n = {len(pairs)}), wanted {theirs:.2%}, the peer's"
        said.append((better, ours >= theirs))
    return said


def slower(found: FitsBySeed, other: Fitted, wanted: float) -> list[tuple[str, bool]]:
    """Whether `other` took at least so many times as long as `cnn_fast`; only fits of the same seed are compared."""
    pairs = same_seeds(found, CNN_FAST, other)
    if not pairs:
        return []
    ratios = [theirs.seconds / ours.seconds for ours, theirs in pairs]
    kind, name = other
    said = f"{name.removesuffix('_keras')} ({kind}): {with_n(ratios, 1)} times as long as cnn_fast"
    apart = [abs(theirs.ended - ours.ended) for ours, theirs in pairs if theirs.ended and ours.ended]
    if apart:
        said += f", ended within {max(apart) / 60:.0f} minutes of it"
    return [(f"{said}, wanted {wanted:g}", statistics.mean(ratios) >= wanted)]


def agreement(found: FitsBySeed) -> list[tuple[str, bool]]:
    """Whether `cnn_fast` as it is and in float32 differ by a standard error of their difference at most.

    Seeds are taken as independent fits: after some steps two precisions share no more than the split.
    """
    pairs = same_seeds(found, CNN_FAST, ("float32", "cnn_fast"))
    if len(pairs) < 2:
        return []
    scores = [[100 * fit.test_accuracy for fit in fits] for fits in zip(*pairs, strict=True)]
    difference = statistics.mean(scores[0]) - statistics.mean(scores[1])
    error = math.hypot(*(statistics.stdev(each) / math.sqrt(len(each)) for each in scores))
    said = (
        f"cnn_fast: bfloat16 has {difference:+.2f} points on the test set against float32, n = {len(pairs)},"
        f" wanted {error:.2f} at most, one standard error"
    )
    return [(said, abs(difference) <= error)]


def same_seeds(found: FitsBySeed, one: Fitted, other: Fitted) -> list[tuple[Fit, Fit]]:
    ones, others = found.get(one, {}), found.get(other, {})
    return [(ones[seed], others[seed]) for seed in sorted(ones.keys() & others.keys())]


def with_n(values: Sequence[float], digits: int) -> str:
    return f"{spread(values, digits)} (n = {len(values)})"
