"""Test whether `cnn_fast` has the same validation accuracy in bfloat16 as in float32, by two one-sided tests.

The test is that of Schuirmann (1987, doi:10.1007/BF01068419), paired over seeds: the two fits of a seed share the
split, the initial weights and the order of the images. The precisions count as equivalent if both tests reject, at the
level of 5 %, that the mean difference is as large as the margin; then its 90 % interval lies within the margin. Margin,
level and number of seeds were fixed before the first of these fits. The test set is not scored.
Each fit is a run of the MLflow experiment `precision` and is not repeated (see benchmarks/runs.py), so the command can
be stopped and repeated. Without bfloat16 in hardware it works too, but takes several times as long.
Usage: python -m benchmarks.training.precision [--table-only]
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from benchmarks.reporting import spread
from benchmarks.runs import Runs, Wanted, accuracy, here

EXPERIMENT = "cnn_fast"
STORE = "precision"  # MLflow experiment of the fits
PRECISIONS = ("bfloat16", "float32")
SEEDS = range(10)
MARGIN = 0.2  # percentage points
LEVEL = 0.05

Accuracies = Mapping[str, Mapping[int, float]]  # precision → seed → percent


@dataclass(frozen=True)
class Equivalence:
    """The result of two one-sided tests on the differences of pairs, in percentage points."""

    differences: Sequence[float]
    interval: tuple[float, float]  # of the mean difference, with a confidence of 1 - 2 · LEVEL
    p_values: tuple[float, float]  # that the mean difference is at most -MARGIN, and that it is at least MARGIN

    @property
    def shown(self) -> bool:
        """True if both tests reject."""
        return max(self.p_values) < LEVEL

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        limits = f"the margin of {MARGIN} points (two one-sided tests, level {LEVEL:.0%})"
        if self.shown:
            return f"Equivalent within {limits}."
        low, high = self.interval
        different = "they differ, and " if low > 0 or high < 0 else ""
        return f"Equivalence is not shown: {different}the interval does not lie within {limits}."


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table-only", action="store_true", help="fit nothing, only print what the store has")
    return parser


def main() -> None:
    """Make the fits that are missing, and print the test."""
    given = parser().parse_args()
    runs = Runs(STORE, here())
    for seed in () if given.table_only else SEEDS:  # both fits of a seed follow each other
        for precision in PRECISIONS:
            runs.have(wanted(precision, seed))
    found: dict[str, dict[int, float]] = {precision: {} for precision in PRECISIONS}
    for precision in PRECISIONS:
        for seed in SEEDS:
            if run := runs.find(wanted(precision, seed)):
                found[precision][seed] = accuracy(run, "validation")
    print(report(found), runs.version.describe(), sep="\n\n")


def wanted(precision: str, seed: int) -> Wanted:
    """Return one of the fits; each seed has a split of its own."""
    return Wanted(EXPERIMENT, {"seed": seed, "training.precision": precision})


def test(differences: Sequence[float]) -> Equivalence:
    """Return the two one-sided tests of at least two paired differences, in percentage points."""
    low, high = stats.ttest_1samp(differences, 0.0).confidence_interval(1 - 2 * LEVEL)
    p_values = (
        float(stats.ttest_1samp(differences, -MARGIN, alternative="greater").pvalue),
        float(stats.ttest_1samp(differences, MARGIN, alternative="less").pvalue),
    )
    return Equivalence(differences, (float(low), float(high)), p_values)


def report(found: Accuracies) -> str:
    """Return the accuracies, the test and what is missing, in Markdown. There is no verdict before all fits exist."""
    first, second = (found[precision] for precision in PRECISIONS)
    seeds = sorted(first.keys() & second.keys())
    pairs = [(seed, first[seed], second[seed]) for seed in seeds]
    rows = [f"| {seed} | {one:.2f} | {other:.2f} | {one - other:+.2f} |" for seed, one, other in pairs]
    head = f"| seed | {' | '.join(f'{precision}, %' for precision in PRECISIONS)} | difference, points |"
    lines = [f"Validation accuracy of `{EXPERIMENT}`:", "", head, "|---|---:|---:|---:|", *rows]
    if len(seeds) > 1:
        result = test([one - other for _, one, other in pairs])
        means = [spread([pair[place] for pair in pairs], 2) for place in (1, 2)]
        lines.append(f"| mean ± standard deviation | {' | '.join(means)} | {spread(result.differences, 3)} |")
        low, high = result.interval
        lines += ["", f"{1 - 2 * LEVEL:.0%} interval of the mean difference: {low:+.3f} to {high:+.3f} points"]
        lines[-1] += f" (n = {len(seeds)} pairs); p = {result.p_values[0]:.4f} and {result.p_values[1]:.4f}."
        if len(seeds) == len(SEEDS):
            lines += ["", result.verdict]
    if missing := [f"seed {seed} in {p}" for seed in SEEDS for p in PRECISIONS if seed not in found[p]]:
        lines += ["", f"Missing: {', '.join(missing)}. There is no verdict before all {len(SEEDS)} pairs exist."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
