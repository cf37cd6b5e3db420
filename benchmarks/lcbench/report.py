"""The table and the figure of the benchmark, and the tests over tasks."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from benchmarks.lcbench import results
from benchmarks.lcbench.results import SHARES, Result
from benchmarks.lcbench.surrogate import EPOCHS
from benchmarks.reporting import processor

LCBENCH = "4,000 random settings"
RESAMPLES = 10_000
Array = NDArray[np.float64]

HEAD = """Regret after a part of the budget of {trials:g} full trials ({budget} epochs), in percent of the range between
the worst and the best of {scale}: mean over {tasks} tasks of the mean over {seeds} seeds. Mean rank among
the {contestants} contestants over the tasks and the four parts of the budget; in brackets its 95 % interval when the
tasks are drawn again {resamples:,} times. Machine: {machine}.

| contestant | {shares} | mean rank | p | trials | seconds |
|---|{rules}---:|---:|---:|---:|
"""
TAIL = """
p is that of a Wilcoxon signed-rank test over the tasks against the first in mean rank, by the mean regret over the four
parts, with Holm's correction. Friedman's test over all contestants at the end of the budget: p = {friedman:.2g}.
"""


def page(
    have: Sequence[Result], contestants: Sequence[str], budget: int, epochs: int = EPOCHS, scale: str = LCBENCH
) -> str:
    """Return the table of the contestants in Markdown, the first in mean rank first.

    `epochs` are those of a full trial, and `scale` are the settings whose worst and best make the scale of a task.
    """
    names, tasks, regrets, seeds = regrets_of(have, contestants, budget)
    if not tasks:
        return "no task has results of all contestants yet\n"
    ranks = stats.rankdata(regrets, axis=1).mean(axis=0)  # (contestants, tasks)
    drawn = np.random.default_rng(0).integers(len(tasks), size=(RESAMPLES, len(tasks)))
    low, high = np.quantile(ranks[:, drawn].mean(axis=2), [0.025, 0.975], axis=1)
    order = np.argsort(ranks.mean(axis=1))
    tests = holm(regrets.mean(axis=0), int(order[0]))
    machine = f"{os.cpu_count()} cores of {processor()}; Python {platform.python_version()}"
    text = HEAD.format(
        trials=budget / epochs,
        budget=budget,
        scale=scale,
        tasks=len(tasks),
        seeds=seeds,
        contestants=len(names),
        resamples=RESAMPLES,
        machine=machine,
        shares=" | ".join(f"{share:.0%}" for share in SHARES),
        rules="---:|" * len(SHARES),
    )
    for index in order:
        own = [result for result in have if result.contestant == names[index] and result.task in tasks]
        cells = [f"{value:.1f}" for value in regrets[:, index].mean(axis=1)]
        rank = f"{ranks[index].mean():.2f} [{low[index]:.2f}, {high[index]:.2f}]"
        p = "" if index == order[0] else f"{tests[index]:.2g}"
        trials, seconds = (float(np.mean([getattr(r, field) for r in own])) for field in ("trials", "seconds"))
        row = [names[index], *cells, rank, p, f"{trials:.0f}", f"{seconds:.1f}"]
        text += f"| {' | '.join(row)} |\n"
    friedman = stats.friedmanchisquare(*regrets[-1]).pvalue if len(names) > 2 and len(tasks) > 1 else float("nan")
    return text + TAIL.format(friedman=friedman)


def regrets_of(
    have: Sequence[Result], contestants: Sequence[str], budget: int
) -> tuple[list[str], list[str], Array, int]:
    """Return the contestants, the tasks and the number of seeds that all have, and the mean regrets over the seeds.

    The regrets have the shape (parts of the budget, contestants, tasks).
    """
    found = {(result.contestant, result.task, result.seed) for result in have}
    names = [name for name in contestants if any(known == name for known, _, _ in found)]
    pairs = sorted({(task, seed) for _, task, seed in found})
    common = {pair for pair in pairs if all((name, *pair) in found for name in names)}
    tasks = sorted({task for task, _ in common})
    shared = [result for result in have if (result.task, result.seed) in common]
    per_share = []
    for share in SHARES:
        regrets = results.table(shared, share * budget)
        per_share.append(results.by_task({name: regrets[name] for name in names if name in regrets}, tasks))
    seeds = max((sum(task == known for known, _ in common) for task in tasks), default=0)
    return names, tasks, np.array(per_share), seeds


def holm(regrets: Array, first: int) -> Array:
    """Return the corrected p-value of each contestant against the first one; shape (contestants,).

    Args:
        regrets: shape (contestants, tasks).
        first: index of the contestant that the others are compared with.
    """
    others = [index for index in range(len(regrets)) if index != first]
    p = np.ones(len(regrets))
    for index in others:
        if np.any(regrets[index] != regrets[first]):
            p[index] = stats.wilcoxon(regrets[index], regrets[first]).pvalue
    highest = 0.0
    for place, index in enumerate(sorted(others, key=lambda other: p[other])):
        highest = p[index] = max(highest, min(1.0, p[index] * (len(others) - place)))
    return p


def curves(have: Sequence[Result], contestants: Sequence[str], budget: int) -> Figure:
    """Draw the mean regret of each contestant against the epochs used."""
    names, tasks, _, _ = regrets_of(have, contestants, budget)
    figure = Figure(figsize=(9, 5.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    epochs = np.unique(np.linspace(budget / 100, budget, 200).round())
    for name in names:
        own = [result for result in have if result.contestant == name and result.task in tasks]
        means = [np.mean([result.regret(when) for result in own]) for when in epochs]
        width = 2.4 if name.startswith("fmnist_exp") else 1.2
        axes.plot(epochs / EPOCHS, means, linewidth=width, label=name)
    axes.set(xlabel="epochs used, in full trials", ylabel="regret, % of the range of 4,000 random settings")
    axes.set(xscale="log", title=f"LCBench, mean over {len(tasks)} tasks")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    return figure
