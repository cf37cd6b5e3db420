"""The page docs/results.md and its figure."""

import statistics
import textwrap
from collections.abc import Sequence

from matplotlib.figure import Figure

from benchmarks.processes import PROJECT
from benchmarks.reporting import spread
from benchmarks.results import fits
from benchmarks.results.fits import ENSEMBLE, OURS, PLAIN, PUBLISHED, SEEDS, Fit, Results

DOCS = PROJECT / "docs"
NONE = "–"
HEAD = """# The five published systems and the platform's own networks

`make results` (`python -m benchmarks.systems`) writes this page from [results.jsonl](results.jsonl), which has a line
for each fit, and makes the fits that are missing. Every number was computed by the code and the libraries of the next
paragraph; results of other versions are not shown. The list at the end names the machines and precisions.

{conditions}

Accuracies are in percent, mean ± standard deviation over n = {n} seeds ({seeds}) unless a cell says otherwise. Each
network was trained on 48,000 images and scored on the test set once, at its end. Earlier releases scored every run of
`train`, so our own recipes were not developed in ignorance of the test set; these scores decided nothing.

Two spreads are separated. In the columns "one split" all seeds have the same training and validation images, so that
the runs differ in initial weights, order and augmentation of the images. In the columns "split per seed" each seed also
has a split of its own; the run of seed 0 belongs to both. A standard deviation of {n} values is itself uncertain by
half of its size. In addition, one test score near 93 % has a standard error of 0.25 percentage points, because the test
set is a sample of 10,000 images, and a validation score one of 0.33 points, with 6,000 images.

"Plain Keras" is the published recipe as the author of a notebook would write it (benchmarks/peers), with a split per
seed and the same splits. What a published description leaves open is stated at the top of the script. "Headline" is the
accuracy that a system's own README claims, or that the project had set itself as a goal. The comment at the top of each
file in [experiments/](../experiments) lists what was added to a published recipe. Training times are in
[performance.md](performance.md); this page states none, because other work shared the cores. The table of an earlier
version, with 54,000 training images, is in the [lab notes](log/2026-11-22-results.md).

| experiment | parameters | epochs | validation, one split | validation, split per seed | test, one split | \
test, split per seed | plain Keras, test | headline |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
{rows}

{status}
"""
FIGURE = """
![Validation accuracy by epoch](pictures/systems-curves.png)
"""


def write(store: Results) -> None:
    """Write the page and its figure from the results that exist."""
    rows = [row(store, name) for name in (*PUBLISHED, *OURS)]
    if fit := store.ensemble():
        rows.append(
            f"| `{ENSEMBLE}` of the `cnn`s | | | {fit.validation:.2f} (n = 1) | | {fit.test:.2f} (n = 1) | | | |"
        )
    missing = fits.incomplete(store)
    status = f"Missing; `make results` completes it: {'; '.join(missing)}." if missing else "All results are complete."
    fields = {"n": len(SEEDS), "seeds": ", ".join(map(str, SEEDS)), "rows": "\n".join(rows), "status": status}
    text = HEAD.format(conditions=textwrap.fill(store.runs.version.software(), width=120), **fields)
    curves = by_epoch(store)
    if curves:
        draw(curves).savefig(DOCS / "pictures" / "systems-curves.png")
        text += FIGURE
    (DOCS / "results.md").write_text(text + list_of_fits(store), encoding="utf-8")
    print(status, flush=True)


def row(store: Results, name: str) -> str:
    """Return an experiment's row of the table."""
    shared, own = store.one_split(name), store.own_splits(name)
    cells = [NONE, NONE]
    if everything := {**own, **shared}:
        epochs = [float(len(fit.curve)) for fit in everything.values()]
        cells = [
            f"{next(iter(everything.values())).parameters:,}",
            spread(epochs, 0) if len(set(epochs)) > 1 else f"{epochs[0]:g}",
        ]
    cells += [cell([fit.validation for fit in found.values()]) for found in (shared, own)]
    cells += [cell([fit.test for fit in found.values()]) for found in (shared, own)]
    plain = cell([fit.test for fit in store.plain(name).values()]) if name in PLAIN else ""
    return f"| `{name}` | {' | '.join([*cells, plain, PUBLISHED.get(name) or OURS[name]])} |"


def cell(values: Sequence[float]) -> str:
    """Return mean ± standard deviation, with n if values are missing."""
    if not values:
        return NONE
    return spread(values, 2) + ("" if len(values) == len(SEEDS) else f" (n = {len(values)})")


def list_of_fits(store: Results) -> str:
    """Return the section that lists every fit."""
    lines = []
    for name in (*PUBLISHED, *OURS):
        own = [fit for seed, fit in store.own_splits(name).items() if seed != fits.ONE_SPLIT]
        kinds = {f"`{name}`": [*store.one_split(name).values(), *own]}
        kinds[f"`{name}` in plain Keras"] = list(store.plain(name).values()) if name in PLAIN else []
        for title, found in kinds.items():
            where: dict[str, list[Fit]] = {}
            for fit in found:
                where.setdefault(f"{fit.precision}, {fit.machine}", []).append(fit)
            for machine, there in where.items():
                scores = (f"{fit.test:.2f} (seed {fit.seed}, split {fit.split_seed})" for fit in there)
                lines.append(f"- {title}, {machine}: {', '.join(scores)}")
    rows = "\n".join(lines) or "There are none yet."
    return f"\n## Fits\n\nThe test accuracy of each fit in percent, with its precision, machine and seeds:\n\n{rows}\n"


def by_epoch(store: Results) -> dict[str, list[float]]:
    """Return the validation accuracy by epoch on the common split, in percent, the mean of an experiment's runs."""
    curves = {}
    for name in (*PUBLISHED, *OURS):
        found = [fit.curve for fit in store.one_split(name).values()]
        if found and name != "naive":
            epochs = min(map(len, found))  # early stopping ends runs at different epochs
            curves[name] = [statistics.mean(curve[epoch] for curve in found) for epoch in range(epochs)]
    return curves


def draw(curves: dict[str, list[float]]) -> Figure:
    """Draw the validation accuracies by epoch."""
    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    axes = figure.subplots()
    for name, mean in curves.items():
        style = {"linewidth": 2.5} if name in OURS else {"linestyle": "--"}
        axes.plot(range(1, len(mean) + 1), mean, marker=".", label=name, **style)
    axes.set(xlabel="epoch", ylabel="validation accuracy, %", title="Validation accuracy by epoch, one split")
    axes.set_ylim(80, None)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
