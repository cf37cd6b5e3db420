"""Simulate the gate on drawn answers, and compute its power; `python -m benchmarks.gate` updates docs/gate.md.

The decisions are those of the package: `comparison.p_values` and `comparison.level_of`. It takes ten seconds. With
`--disagreement`, the command prints on how many of the gate's images the networks disagree that
`benchmarks.training.precision` has fitted, instead.
"""

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import zeta
from scipy.stats import binom

from fmnist_exp.config.schema import DataConfig, GateConfig
from fmnist_exp.evaluation.comparison import level_of, p_values

LEVEL: Final = GateConfig().level
REPETITIONS = 2000
IMAGES = 6000  # of validation, and of the gate
DISCORDANCE = 0.05  # share of images that exactly one of two models has right
CLOSE = 0.03  # the same share for two fits of one experiment, by `--disagreement`
TRIALS = (1, 5, 12, 50)
CHALLENGES = (1, 5, 12, 20)
SIZES = (3000, 6000, 10_000, 12_000)
DIFFERENCES = (0.003, 0.005, 0.01)
PAGE = Path(__file__).parents[1] / "docs" / "gate.md"
PICTURE = "gate-power.png"


def false_promotions(
    seed: int, trials: int, *, challenges: int = 1, champion_trials: int = 1, old_rule: bool = False
) -> int:
    """Return in how many of the repetitions equal models promote at least one of their challengers.

    On a share of the images, each model is right with probability 1/2, independently of all others; on the rest, all
    agree. Champion and challengers are each the best of their trials on the validation images. The gate judges them
    on images of its own; the rule before judged on the validation images, each time at the whole level.
    """
    random = np.random.default_rng(seed)
    seen, fresh = random.binomial(IMAGES, 2 * DISCORDANCE, (2, REPETITIONS, 1))  # (R, 1) images that luck decides

    def best_of(count: int) -> NDArray[np.int64]:
        chosen_on = random.binomial(seen, 0.5, (REPETITIONS, count))  # (R, K) images that each trial has right
        judged_on = chosen_on if old_rule else random.binomial(fresh, 0.5, (REPETITIONS, count))
        return np.take_along_axis(judged_on, chosen_on.argmax(axis=1)[:, None], axis=1)  # (R, 1)

    champion = best_of(champion_trials)
    promoted = np.zeros((REPETITIONS, 1), bool)
    for challenge in range(1, challenges + 1):
        challenger = best_of(trials)
        both = random.hypergeometric(champion, (seen if old_rule else fresh) - champion, challenger)
        level = LEVEL if old_rule else level_of(challenge, LEVEL)
        promoted |= p_values(challenger - both, champion - both) < level
    return int(promoted.sum())


def allowed() -> int:
    """Return the count of false promotions that a gate of exactly this level exceeds once in a thousand simulations."""
    return int(binom.isf(1e-3, REPETITIONS, LEVEL))


def power(images: int, difference: float, level: float, discordance: float = DISCORDANCE) -> float:
    """Return the probability that a challenger with an accuracy better by `difference` passes at this level."""
    counts = np.arange(*binom.ppf((1e-9, 1 - 1e-9), images, discordance).astype(int))  # (D,) images that one has right
    least = binom.isf(level, counts, 0.5) + 1
    least += p_values(least, counts - least) >= level  # the gate asks for less than the level
    passes = binom.sf(least - 1, counts, (discordance + difference) / (2 * discordance))
    return float((binom.pmf(counts, images, discordance) * passes).sum())


def sequences() -> dict[str, Callable[[int], float]]:
    """Return ways to spend the level over all challenges, as shares that sum to 1."""
    lord_sum = 0.07720838  # Javanmard and Montanari, 2018
    return {
        "1 / (k (k + 1))": lambda k: 1 / (k * (k + 1)),
        "6 / (π² k²)": lambda k: 6 / (np.pi**2 * k**2),
        "k^-1.6 / ζ(1.6) (taken)": lambda k: level_of(k, 1.0),
        "k^-1.3 / ζ(1.3)": lambda k: k**-1.3 / float(zeta(1.3)),
        "LORD: log(max(k, 2)) / (k exp(√log k))": lambda k: (
            lord_sum * np.log(max(k, 2)) / (k * np.exp(np.sqrt(np.log(k))))
        ),
    }


def curves() -> Figure:
    """Draw the power over the true difference, for each size at the first and the twelfth challenge."""
    figure = Figure(figsize=(8, 4.2), dpi=120, layout="constrained")
    differences = np.linspace(0, 0.02, 41)
    for axes, challenge in zip(figure.subplots(1, 2, sharey=True), (1, 12), strict=True):
        for images in SIZES:
            values = [power(images, difference, level_of(challenge, LEVEL)) for difference in differences]
            axes.plot(100 * differences, values, label=f"{images:,} images")
        axes.set_title(f"challenge {challenge} of a champion: level {level_of(challenge, LEVEL):.2g}", fontsize=10)
        axes.set(xlabel="true lead of the challenger in points", ylim=(0, 1))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=9)
    figure.axes[0].set_ylabel("probability of passing")
    return figure


def simulation_table() -> str:
    """Return the simulated shares of false promotions, in Markdown."""
    head = ["challenger", "one challenge", "20 in a row, single-run champion", "20 in a row, champion best of 12"]
    rows = []
    for trials in TRIALS:
        cases = [(1, 1, False), (20, 1, False), (20, 12, False), (1, 1, True), (20, 1, True)]
        counts = [
            false_promotions(trials, trials, challenges=many, champion_trials=champion, old_rule=old)
            for many, champion, old in cases
        ]
        rows.append([f"best of {trials}", *(f"{count / REPETITIONS:.1%}" for count in counts)])
    return _table([*head, "one challenge, old rule", "20 in a row, old rule"], rows)


def power_table() -> str:
    """Return the power by size, lead and challenge, in Markdown."""
    head = ["disagreement", "images", "lead", *(f"k = {k} (level {level_of(k, LEVEL):.2g})" for k in CHALLENGES)]
    rows = [
        [
            f"{share:.0%}",
            f"{images:,}",
            f"{100 * lead:.1f} points",
            *(f"{power(images, lead, level_of(k, LEVEL), share):.0%}" for k in CHALLENGES),
        ]
        for share, images in [*((DISCORDANCE, size) for size in SIZES), (CLOSE, IMAGES)]
        for lead in DIFFERENCES
    ]
    return _table(head, rows)


def sequence_table() -> str:
    """Return the mean power of each way to spend the level, in Markdown."""
    rows = []
    for name, share in sequences().items():
        levels = [LEVEL * share(k) for k in CHALLENGES]
        values = [np.mean([power(IMAGES, lead, level) for lead in DIFFERENCES]) for level in levels]
        rows.append([name, *(f"{value:.0%}" for value in values), f"{np.mean(values):.1%}"])
    return _table(["share of the level", *(f"k = {k}" for k in CHALLENGES), "mean"], rows)


def disagreement() -> str:
    """Return on how many of the gate's images exactly one of two fitted networks is right, over all pairs."""
    from benchmarks.runs import Runs, here  # late: they import Keras, which the page does not need
    from benchmarks.training import precision
    from fmnist_exp.data import dataset
    from fmnist_exp.registry import lineage

    runs = Runs(precision.STORE, here())
    gate = dataset.load(DataConfig(), seed=0).gate
    right = []
    for run in runs.finished(precision.EXPERIMENT):
        model = lineage.find(runs.client, f"runs:/{run.info.run_id}").load_predictor()
        right.append(model.probabilities(gate.images).argmax(axis=1) == gate.labels)
    shares = [np.mean(one != other) for one, other in itertools.combinations(right, 2)]
    if not shares:
        return "There are no two fits yet; `python -m benchmarks.training.precision` makes them."
    limits = f"{min(shares):.1%} to {max(shares):.1%} of {len(gate.labels):,} images, mean {np.mean(shares):.1%}"
    found = f"{len(right)} networks, {len(shares)} pairs: exactly one of two is right on {limits}."
    return f"{found}\n\n{runs.version.describe()}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---:"] * len(head), *rows])


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--disagreement", action="store_true", help="print how often two fitted networks disagree")
    return options


def main() -> None:
    """Write the page and its figure, or print the disagreement."""
    if parser().parse_args().disagreement:
        print(disagreement())
        return
    curves().savefig(PAGE.parent / "pictures" / PICTURE)
    text = PAGE.read_text(encoding="utf-8")
    for name, table in {"simulation": simulation_table, "power": power_table, "sequences": sequence_table}.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
        before, _, rest = text.partition(start)
        text = f"{before}{start}\n{table()}\n\n{end}{rest.partition(end)[2]}"
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
