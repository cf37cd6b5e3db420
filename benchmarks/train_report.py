"""The tables and verdicts that benchmarks/train_speed.py prints of what it measured."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contestants import CONTESTANTS
from rich.console import Console
from rich.table import Table
from train_fits import WANTED, Contender, Reached

HOUR = 3600  # seconds
LIMIT = 2048  # MiB, for the whole process of a run of cnn
PEAK = "bfloat16"
# what is asked of throughput: a share of the peak, or a ratio to another contestant
SHARES = {"cnn": 0.6}
RATIOS = {("mlp", "funnel_mlp_keras"): 3.0, ("cnn", "cnn_stock"): None, ("deep_cnn", "deep_cnn_keras"): None}
ACCURACIES = {"cnn_fast": 0.93, "cnn_95": 0.95}  # on the test set, mean of the seeds
TIMES = {("peer", "deep_cnn_keras"): 15, ("stock", "cnn_fast"): 2}  # as long as cnn_fast, at least

Found = Mapping[Contender, Mapping[int, Reached]]  # by seed
FAST = ("platform", "cnn_fast")

console = Console(width=120)


@dataclass
class Measured:
    """One contestant: what it said of itself, and a rate per round (images or floating-point operations a second)."""

    notes: dict[str, Any]
    rates: list[float] = field(default_factory=list)
    mebibytes: float = 0.0

    def flops(self) -> float:
        return statistics.mean(self.rates) * float(self.notes["flop"])


def machine(notes: Mapping[str, Any]) -> None:
    if notes:
        console.print(f"Machine: {notes['cores']} cores, {notes['processor']}; bfloat16 by {notes['bfloat16']}")


def throughput(measured: Mapping[str, Measured]) -> None:
    if not measured:
        return
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


def costs(phases: Mapping[str, float], run: Mapping[str, float]) -> None:
    """Seconds from start to first step, by phase; the memory and time of a whole run of `cnn` with one epoch."""
    if run:
        console.print(
            f"A whole run of cnn with one epoch: peak {run['mebibytes']:,.0f} MiB (wanted: at most {LIMIT:,}),"
            f" {run['wall']:.1f} s from start to end"
        )
    if phases:
        table = Table(title="A run of cnn, from the process' start to its first step")
        table.add_column("")
        table.add_column("s", justify="right")
        for phase, seconds in [*phases.items(), ("sum", sum(phases.values()))]:
            table.add_row(phase, f"{seconds:.2f}")
        console.print(table)


def whole_fits(found: Found, missing: Sequence[str]) -> None:
    table = Table(title=f"Whole fits; a peer's seconds are those to {WANTED:.1%} on the test set, or to its best epoch")
    for column in ("", "n", "fitting, s", "validation, %", "test, %", "wanted, %", "peak, MiB"):
        table.add_column(column, justify="right" if column else "left")
    for (kind, name), by_seed in found.items():
        fits = list(by_seed.values())
        label = {"platform": "", "stock": ", float32, stock layers, fit's defaults", "peer": " in plain Keras"}[kind]
        memory = max(fit.mebibytes or 0 for fit in fits)
        table.add_row(
            name.removesuffix("_keras") + label,
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


def verdicts(found: Found) -> list[tuple[str, bool]]:
    """What is wanted of whole fits, and whether it was reached, as far as they are there."""
    accuracy = {key: statistics.mean(fit.test_accuracy for fit in fits.values()) for key, fits in found.items()}
    said = []
    for name, least in ACCURACIES.items():
        if (key := ("platform", name)) in found:
            said.append((f"{name}: {accuracy[key]:.2%} on the test set, wanted {least:.1%}", accuracy[key] >= least))
    said += [verdict for key, least in TIMES.items() for verdict in slower(found, key, least)]
    said += agreement(found)
    if (slow := ("platform", "cnn_95")) in found:
        longest = max(fit.seconds for fit in found[slow].values())
        said.append((f"cnn_95: {longest / 60:.0f} minutes, wanted {HOUR // 60} at most", longest <= HOUR))
    mlp, funnel = ("platform", "mlp"), ("peer", "funnel_mlp_keras")
    if mlp in found and funnel in found:
        better = accuracy[mlp] >= accuracy[funnel]
        said.append((f"mlp: {accuracy[mlp]:.2%} on the test set, wanted {accuracy[funnel]:.2%}, the peer's", better))
    return said


def slower(found: Found, other: Contender, wanted: float) -> list[tuple[str, bool]]:
    """Whether `other` took at least so many times as long as `cnn_fast`; only fits of the same seed are compared."""
    seeds = found.get(FAST, {}).keys() & found.get(other, {}).keys()
    if not seeds:
        return []
    ratios = [found[other][seed].seconds / found[FAST][seed].seconds for seed in sorted(seeds)]
    kind, name = other
    said = f"{name.removesuffix('_keras')} ({kind}): {spread(ratios, 1)} times as long as cnn_fast, n = {len(ratios)}"
    return [(f"{said}, wanted {wanted:g}", statistics.mean(ratios) >= wanted)]


def agreement(found: Found) -> list[tuple[str, bool]]:
    """Whether `cnn_fast` in bfloat16 and in float32 differ by a standard error of their difference at most."""
    fits = [found.get(key, {}) for key in (FAST, ("stock", "cnn_fast"))]
    if min(map(len, fits)) < 2:
        return []
    scores = [[100 * fit.test_accuracy for fit in each.values()] for each in fits]
    difference = abs(statistics.mean(scores[0]) - statistics.mean(scores[1]))
    error = math.hypot(*(statistics.stdev(each) / math.sqrt(len(each)) for each in scores))
    said = (
        f"bfloat16 and float32: {difference:.2f} points apart on the test set, wanted {error:.2f}, one standard error"
    )
    return [(said, difference <= error)]


def spread(values: Sequence[float], digits: int) -> str:
    mean = f"{statistics.mean(values):,.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"
