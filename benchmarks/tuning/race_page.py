"""The page docs/tune_race.md and its figure: the attempts of benchmarks.tuning.race, as a table and as curves."""

import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks.reporting import spread

OURS, PLAIN = "fmnist_exp", "plain_optuna"
CONTESTANTS = (OURS, PLAIN, "hyperband", "random_search", "one_epoch_top_k")
RECIPES = ("same", "tutorial")
FINAL = 10**6  # number of the final fit, which is no trial, in the points of an attempt

Point = tuple[float, int, float]  # seconds since the start, number of the trial, validation accuracy


@dataclass(frozen=True)
class Attempt:
    """One attempt of a contestant, with a point for each epoch."""

    contestant: str
    recipe: str  # of a peer
    repeat: int
    seconds: float  # the budget
    version: str  # digest of the code, the libraries and the experiment
    machine: str
    points: list[Point] = field(default_factory=list)

    @property
    def key(self) -> tuple[object, ...]:
        """The values that identify this attempt among all others."""
        return self.contestant, self.recipe, self.repeat, self.seconds, self.version, self.machine

    @property
    def label(self) -> str:
        """The contestant with its recipe."""
        return f"{self.contestant}, {self.recipe}" if self.recipe else self.contestant

    @property
    def best(self) -> float:
        """The best accuracy of an epoch."""
        return max((accuracy for _, _, accuracy in self.points), default=0.0)

    @property
    def trials(self) -> int:
        """The number of trials."""
        return len({trial for _, trial, _ in self.points} - {FINAL})

    def first(self, count: int) -> "Attempt":
        """Return the attempt as it were with its first `count` trials alone, and without a final fit."""
        return replace(self, points=[point for point in self.points if point[1] < count])

    def curve(self) -> list[tuple[float, float]]:
        """Return each new best accuracy, after its time in seconds."""
        best, steps = 0.0, []
        for seconds, _, accuracy in sorted(self.points):
            if accuracy > best:
                best = accuracy
                steps.append((seconds, accuracy))
        return steps

    def reaches(self, accuracy: float) -> float | None:
        """Return the seconds until this accuracy; None if it was never reached."""
        return next((seconds for seconds, best in self.curve() if best >= accuracy), None)


HEAD = """# A race of searches

`make race` (`python -m benchmarks.tuning.race`) writes this page from [race.jsonl](race.jsonl), which has a line for
each attempt, and makes the attempts that are missing on its machine. Attempts of other versions are not shown.

{version}

All contestants have the same network and the same ranges of dropout, L2 and widths (experiments/tune_cnn.yaml), the
same training and validation images, and the same {minutes:g} minutes from the start of their process. They run one at a
time. Each begins with the default setting of its recipe, and each recipe has a range of learning rates that fits its
optimizer.

The platform's attempt is `fmnist-exp tune --experiment tune_cnn` with this time limit. It trains as the experiment's
file says: Muon, one learning-rate cycle, mirrored images, batches of 256; in bfloat16 where the processor has it, with
its fast layers, two trials at once. It shortens the schedules of its trials so that the time suffices for a final fit
of the best setting, which has more epochs, more augmentation, smoothed labels, and answers that are averaged over
flips and shifts of an image; none of that has a counterpart in the peers. The peers are in benchmarks/peers/. They
train in float32 by Keras' `fit`, one trial of 5 epochs at a time on both cores, with two recipes:

- `same`: the platform's optimizer, schedule, batches and mirrored images. What remains is the search, the final fit,
  the layers, the precision and the two workers.
- `tutorial`: Adam with a constant learning rate, batches of 128 and unchanged images, as in tutorials.

Only the time is equal; the numbers of trials and of their epochs differ. The column "best of the first trials"
therefore counts as many trials of each attempt as the attempt with the fewest has, and no final fit. A row "trial 0
alone" shows what the default setting reaches without any search, and the row "without the final fit" what the
platform's trials reach. Accuracy is in percent of the 6,000 validation images, on which the searches also choose: the
best of many trials is too high, by more the more trials there are. Values are mean ± standard deviation over the
attempts; one score has a standard error of 0.3 percentage points.

An earlier race had rules that were unfair to the peers; it is in the [lab notes](log/2026-11-21-race.md).
"""
MACHINE = """
## {machine}

{bar}| contestant, recipe | attempts | best accuracy | trials | best of the first {count} | seconds to the bar |
|---|---:|---:|---:|---:|---:|
"""
BAR = "The bar is {goal:.2f} %, the mean of the plain Optuna script with the same recipe.\n\n"
NO_ATTEMPTS = "\nNo attempt was made by these rules yet. `make race` makes three of each in about five hours.\n"


def page(attempts: Sequence[Attempt], minutes: float, version: str) -> str:
    """Return the text of docs/tune_race.md without its figure; `version` says what computed the attempts."""
    text = HEAD.format(minutes=minutes, version=textwrap.fill(version, width=120))
    for machine in machines(attempts):
        text += section(machine, [attempt for attempt in attempts if attempt.machine == machine])
    return text if attempts else text + NO_ATTEMPTS


def machines(attempts: Sequence[Attempt]) -> list[str]:
    """Return the machines of the attempts, in the order of their first attempts."""
    return list(dict.fromkeys(attempt.machine for attempt in attempts))


def section(machine: str, attempts: Sequence[Attempt]) -> str:
    """Return the section with the table of the attempts on one machine."""
    plain = [attempt.best for attempt in attempts if (attempt.contestant, attempt.recipe) == (PLAIN, RECIPES[0])]
    goal = statistics.mean(plain) if plain else None
    count = min(attempt.trials for attempt in attempts)
    text = MACHINE.format(machine=machine, bar=BAR.format(goal=100 * goal) if goal else "", count=count)
    for mine in grouped(attempts):
        rows = {mine[0].label: mine}
        if mine[0].contestant == OURS:
            rows[f"{OURS}: without the final fit"] = [attempt.first(FINAL) for attempt in mine]
        if mine[0].contestant in (OURS, PLAIN):
            rows[f"{mine[0].label}: trial 0 alone"] = [attempt.first(1) for attempt in mine]
        for label, shown in rows.items():
            times = ["never" if (s := each.reaches(goal)) is None else f"{s:.0f}" for each in shown] if goal else []
            cells = [len(shown), percent(shown), spread([float(each.trials) for each in shown], 0)]
            cells += [percent([each.first(count) for each in shown]), ", ".join(times)]
            text += f"| {label} | {' | '.join(map(str, cells))} |\n"
    return text


def grouped(attempts: Sequence[Attempt]) -> list[list[Attempt]]:
    """Return the attempts of each contestant with each recipe, the platform's first."""
    kinds = [(OURS, ""), *((name, recipe) for recipe in RECIPES for name in CONTESTANTS if name != OURS)]
    groups = [[attempt for attempt in attempts if (attempt.contestant, attempt.recipe) == kind] for kind in kinds]
    return [group for group in groups if group]


def percent(attempts: Sequence[Attempt]) -> str:
    """Return the best accuracies in percent, with their spread."""
    return spread([100 * attempt.best for attempt in attempts], 2)


def curves(attempts: Sequence[Attempt], minutes: float) -> Figure:
    """Draw the best validation accuracy so far of each attempt against wall-clock time.

    There is a row of panels for each machine, and a column for each recipe.
    """
    rows = machines(attempts)
    figure = Figure(figsize=(12, 5.5 * len(rows)), dpi=100, layout="constrained")
    panels = figure.subplots(len(rows), len(RECIPES), sharex=True, sharey=True, squeeze=False)
    for row, machine in zip(panels, rows, strict=True):
        for axes, recipe in zip(row, RECIPES, strict=True):
            _panel(axes, [each for each in attempts if each.machine == machine and each.recipe in ("", recipe)])
            axes.set(xlim=(0, minutes), title=f"the peers' recipe: {recipe}\n{machine}")
        row[0].set_ylabel("best validation accuracy so far, %")
    for axes in panels[-1]:
        axes.set_xlabel("minutes since the start of the process")
    if bests := [100 * attempt.best for attempt in attempts if attempt.points]:
        panels[0][0].set_ylim(max(0, min(bests) - 5), max(bests) + 0.5)
    return figure


def _panel(axes: Axes, attempts: Sequence[Attempt]) -> None:
    """Draw the attempts of each contestant in its colour."""
    for mine in grouped(attempts):
        name = mine[0].contestant
        style = {"color": f"C{CONTESTANTS.index(name)}", "linewidth": 2.4 if name == OURS else 1.3}
        for attempt in mine:
            if steps := attempt.curve():
                seconds, accuracies = zip(*steps, (attempt.seconds, attempt.best), strict=True)
                label = name if attempt is mine[0] else None
                heights = [100 * accuracy for accuracy in accuracies]
                axes.step([s / 60 for s in seconds], heights, where="post", label=label, **style)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right")
