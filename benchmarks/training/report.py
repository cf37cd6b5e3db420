"""The tables and verdicts that benchmarks.training.speed prints."""

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
PEAK, FLOAT32 = "bfloat16", "float32"
# wanted throughput: a share of the peak, or a ratio to another contestant
SHARES = {"cnn": 0.6}
RATIOS = {
    ("mlp", "funnel_mlp_keras"): 3.0,
    ("cnn", "cnn_stock"): None,
    ("deep_cnn", "deep_cnn_keras"): None,
    ("cnn_fast_float32", "cnn_fast_bfloat16"): None,  # what the choice of the precision gains or costs
}
# networks in float32 with stock layers beside them: a share of the float32 peak or a ratio to the other is wanted
IN_FLOAT32 = {"cnn_float32": "cnn_stock", "cnn_fast_float32": "cnn_fast_stock"}
FLOAT32_SHARE, FLOAT32_RATIO = 0.6, 1.5
ACCURACIES = {"cnn_fast": 93.0, "cnn_95": 95.0}  # percent on the test set, mean of the seeds
TIMES_AS_LONG = {("peer", "deep_cnn_keras"): 15, ("stock", "cnn_fast"): 2}  # at least, relative to cnn_fast

FitsBySeed = Mapping[Fitted, Mapping[int, Fit]]
CNN_FAST = ("platform", "cnn_fast")

LABELS = {
    "platform": "",
    "stock": ", float32, stock layers, fit's defaults",
    "peer": " in plain Keras",
}

console = Console(width=120)


@dataclass
class Measured:
    """One contestant: its description, and one rate per round (images or floating-point operations per second)."""

    notes: dict[str, Any]
    rates: list[float] = field(default_factory=list)
    mebibytes: float = 0.0

    def flops(self) -> float:
        """Return floating-point operations per second, the mean of the rounds."""
        return statistics.mean(self.rates) * float(self.notes["flop"])


def show_machine(notes: Mapping[str, Any]) -> None:
    """Print the description of the machine."""
    if notes:
        console.print(f"Machine: {notes['cores']} cores, {notes['processor']}; bfloat16 by {notes['bfloat16']}")


def show_throughput(measured: Mapping[str, Measured]) -> None:
    """Print the throughput of the contestants, and the wanted ratios between them."""
    if not measured:
        return
    peak = measured[PEAK].flops() if PEAK in measured else None
    table = Table(title="Training steps: mean ± standard deviation over n rounds")
    for column in ("", "n", "images/s", "batch", "MFLOP/image", "GFLOP/s", "of the bfloat16 peak", "MiB", "wanted"):
        table.add_column(column, justify="right" if column else "left")
    for name, contestant in measured.items():
        notes, rates = contestant.notes, contestant.rates
        share = f"{contestant.flops() / peak:.1%}" if peak else ""
        is_network = notes["batch"] > 0  # else a matrix product
        network = [spread(rates, 0), notes["batch"], f"{notes['flop'] / 1e6:.1f}"] if is_network else ["", "", ""]
        speed = spread([rate * notes["flop"] / 1e9 for rate in rates], 1)
        wanted = f"at least {SHARES[name]:.0%}" if name in SHARES else ""
        columns = [len(rates), *network, speed, share, f"{contestant.mebibytes:,.0f}", wanted]
        table.add_row(CONTESTANTS[name].label, *map(str, columns))
    console.print(table)
    for (name, other), least in RATIOS.items():
        if name in measured and other in measured:
            ratios = [a / b for a, b in zip(measured[name].rates, measured[other].rates, strict=True)]
            wanted = f" (wanted: at least {least:g})" if least else ""
            labels = f"{CONTESTANTS[name].label} / {CONTESTANTS[other].label}"
            console.print(f"{labels}: {spread(ratios, 2)} times the images/s, n = {len(ratios)}{wanted}")
    for verdict in in_float32(measured):
        console.print(f"{verdict.sentence}: {'reached' if verdict.reached else 'missed'}")
    for name in (FLOAT32, PEAK):
        if name in measured and measured[name].rates:
            before, *_, after = [rate / 1e9 for rate in [*measured[name].rates, measured[name].rates[-1]]]
            console.print(f"{CONTESTANTS[name].label}: {before:.1f} GFLOP/s before, {after:.1f} after")


def show_costs(phases: Mapping[str, float], run: Mapping[str, float]) -> None:
    """Print the memory and time of a run of `cnn` with one epoch, and the seconds until its first step by phase."""
    if run:
        console.print(
            f"A run of cnn with one epoch: peak memory {run['mebibytes']:,.0f} MiB (wanted: at most {MEMORY_LIMIT:,}),"
            f" {run['wall']:.1f} s from start to end"
        )
    if phases:
        table = Table(title="A run of cnn, from the start of the process to its first step")
        table.add_column("")
        table.add_column("s", justify="right")
        for phase, seconds in [*phases.items(), ("sum", sum(phases.values()))]:
            table.add_row(phase, f"{seconds:.2f}")
        console.print(table)


def show_fits(found: FitsBySeed, missing: Sequence[str]) -> None:
    """Print the whole fits that the store has, the verdicts, and the fits that are missing."""
    if not found:
        console.print("There are no whole fits yet; `make bench-train` makes them in some hours.")
        return
    table = Table(title=f"Whole fits; `reached` is the time to {WANTED:.1%} on the validation images")
    for column in ("", "n", "fitting, s", "reached, s", "validation, %", "test, %", "wanted, %", "peak, MiB"):
        table.add_column(column, justify="right" if column else "left")
    for (kind, name), by_seed in found.items():
        fits = list(by_seed.values())
        label = LABELS[kind]
        memory = max(fit.mebibytes or 0 for fit in fits)
        times = [fit.reached for fit in fits if fit.reached is not None]
        table.add_row(
            name.removesuffix("_keras") + label,
            str(len(fits)),
            spread([fit.seconds for fit in fits], 1),
            f"{spread(times, 1)}{'' if len(times) == len(fits) else f' ({len(times)} fits)'}" if times else "",
            spread([100 * fit.val_accuracy for fit in fits], 2),
            spread([100 * fit.test_accuracy for fit in fits], 2),
            f"{ACCURACIES[name]:.1f}" if kind == "platform" and name in ACCURACIES else "",
            f"{memory:,.0f}" if memory else "",
        )
    console.print(table)
    for (kind, name), by_seed in found.items():
        seeds = ", ".join(f"{100 * fit.test_accuracy:.2f} (seed {seed})" for seed, fit in sorted(by_seed.items()))
        console.print(f"{name.removesuffix('_keras')}{LABELS[kind]}, test accuracy of each seed, %: {seeds}")
    for verdict in verdicts(found):
        console.print(f"{verdict.sentence}: {'reached' if verdict.reached else 'missed'}")
    console.print(f"Missing: {', '.join(missing)}" if missing else "All fits are complete.")


@dataclass(frozen=True)
class Verdict:
    """Something that is wanted, and whether it was reached."""

    value: float
    wanted: float
    reached: bool
    sentence: str  # with the spread and n of the value


def verdicts(found: FitsBySeed) -> list[Verdict]:
    """Return the verdicts on the whole fits that exist."""
    ratios = [slower(found, other, least) for other, least in TIMES_AS_LONG.items()]
    everything = [*accuracies(found), *ratios, longest(found), better_mlp(found)]
    return [verdict for verdict in everything if verdict]


def accuracies(found: FitsBySeed) -> list[Verdict]:
    """Compare the test accuracies of the platform's fits, in percent, with what is wanted."""
    results = []
    for name, wanted in ACCURACIES.items():
        if fits := found.get(("platform", name)):
            scores = [100 * fit.test_accuracy for fit in fits.values()]
            sentence = f"{name}: test accuracy {with_n(scores, 2)} %, wanted {wanted:.1f} %"
            results.append(Verdict(statistics.mean(scores), wanted, statistics.mean(scores) >= wanted, sentence))
    return results


def slower(found: FitsBySeed, other: Fitted, wanted: float) -> Verdict | None:
    """Compare the time of `other` with that of `cnn_fast`, seed by seed; the mean ratio should be at least `wanted`.

    A fit of the same recipe is compared by its whole time, another one by the time to WANTED on the validation images.
    """
    kind, name = other
    pairs = same_seeds(found, CNN_FAST, other)
    whole = name == CNN_FAST[1]
    times = [(theirs.seconds, ours.seconds) if whole else (theirs.reached, ours.reached) for ours, theirs in pairs]
    ratios = [theirs / ours for theirs, ours in times if theirs and ours]
    if not ratios:
        return None
    what = "" if whole else f" to {WANTED:.1%} on the validation images"
    sentence = f"{name.removesuffix('_keras')} ({kind}): {with_n(ratios, 1)} times the time of cnn_fast{what}"
    if len(ratios) < len(pairs):
        sentence += f", where both reached it, which they did not for {len(pairs) - len(ratios)} of {len(pairs)} seeds"
    apart = [abs(theirs.ended - ours.ended) for ours, theirs in pairs if theirs.ended and ours.ended]
    if apart:
        sentence += f", ended within {max(apart) / 60:.0f} minutes of it"
    ratio = statistics.mean(ratios)
    return Verdict(ratio, wanted, ratio >= wanted and len(ratios) == len(pairs), f"{sentence}, wanted {wanted:g}")


def longest(found: FitsBySeed) -> Verdict | None:
    """Compare the longest fit of `cnn_95` with an hour."""
    fits = found.get(("platform", "cnn_95"))
    if not fits:
        return None
    seconds = max(fit.seconds for fit in fits.values())
    sentence = f"cnn_95: the longest fit took {seconds:,.0f} s (n = {len(fits)}), wanted at most {HOUR:,} s"
    return Verdict(seconds, HOUR, seconds <= HOUR, sentence)


def better_mlp(found: FitsBySeed) -> Verdict | None:
    """Compare the test accuracy of `mlp`, in percent, with that of the published network."""
    pairs = same_seeds(found, ("platform", "mlp"), ("peer", "funnel_mlp_keras"))
    if not pairs:
        return None
    ours, theirs = (statistics.mean(100 * fit.test_accuracy for fit in fits) for fits in zip(*pairs, strict=True))
    sentence = f"mlp: test accuracy {ours:.2f} % (n = {len(pairs)}), wanted {theirs:.2f} %, that of funnel_mlp_keras"
    return Verdict(ours, theirs, ours >= theirs, sentence)


def in_float32(measured: Mapping[str, Measured]) -> list[Verdict]:
    """Compare the networks in float32 with the float32 matrix products and with stock layers of the same rounds."""
    found = []
    for name, stock in IN_FLOAT32.items():
        if {name, stock, FLOAT32} <= measured.keys():
            share = measured[name].flops() / measured[FLOAT32].flops()
            ratios = [a / b for a, b in zip(measured[name].rates, measured[stock].rates, strict=True)]
            reached = share >= FLOAT32_SHARE or statistics.mean(ratios) >= FLOAT32_RATIO
            sentence = (
                f"{CONTESTANTS[name].label}: {share:.1%} of the float32 peak and {with_n(ratios, 2)} times the images/s"
                f" of its stock layers, wanted {FLOAT32_SHARE:.0%} or {FLOAT32_RATIO:g} times"
            )
            found.append(Verdict(share, FLOAT32_SHARE, reached, sentence))
    return found


def same_seeds(found: FitsBySeed, one: Fitted, other: Fitted) -> list[tuple[Fit, Fit]]:
    """Return pairs of fits with the same seed."""
    ones, others = found.get(one, {}), found.get(other, {})
    return [(ones[seed], others[seed]) for seed in sorted(ones.keys() & others.keys())]


def with_n(values: Sequence[float], digits: int) -> str:
    return f"{spread(values, digits)} (n = {len(values)})"
