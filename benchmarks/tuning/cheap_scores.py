"""Find out which cheap score of a setting ranks settings as their final fits do, and what each score costs.

Random settings of a search are fitted to the end, with the values of the experiment's `final:`, and in several cheaper
ways: as the trials of the search are, with fewer epochs, and on a part of the images. The curve of every fit also gives
the scores of its prefixes, and those of a trial are taken once more with the moving average of its weights. All scores
are validation accuracies; the test set and the gate's images are not used.

Each result is a line of --file, which is committed, and is not measured again. The command can therefore be stopped and
repeated, also on another machine. One process for each core, with settings of its own, measures the most in the same
time (`taskset -c 0`).

    python -m benchmarks.tuning.cheap_scores                 # the table and the figure, after 24 settings: hours
    python -m benchmarks.tuning.cheap_scores --settings 0    # the table and the figure of what the file has
"""

import argparse
import hashlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from scipy import stats

from benchmarks import arguments, processes, records, reporting
from fmnist_exp.data.dataset import Split
from fmnist_exp.training.events import Checkpoint, FitCallback

PICTURE = processes.PROJECT / "docs" / "pictures" / "cheap-scores.png"
FILE = processes.PROJECT / "docs" / "cheap-scores" / "tune_cnn.jsonl"
RESAMPLES = 2000  # of the settings, for the intervals
LEVEL = 0.95
WHOLE, TRIAL = "final fit", "trial"
SHORT = (1, 2)  # epochs of short but complete schedules
AVERAGED = "trial with averaged weights"
BATCH = 1000  # images that are measured at once
MOMENTUM = 0.98  # of the moving average: it covers about 50 steps
PARTS = (0.5, 0.25)  # of the training images, with the epochs of a trial


@dataclass(frozen=True)
class Row:
    """One cheap score."""

    name: str
    cost: float  # of the final fit's time, the mean over the settings
    correlation: float  # Spearman's, with the final score
    interval: tuple[float, float]
    regret: float  # final score of the best setting minus that of the setting that the cheap score would choose


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return arguments.parser(
        __doc__,
        experiment=("tune_cnn", "experiment with a search and a section final"),
        settings=(24, "settings to fit; the first one is the experiment's own, the others are random"),
        first=(0, "number of the first setting to fit"),
        epochs=(12, "epochs of the final fits"),
        seed=(0, "random seed of the settings"),
        file=(str(FILE), "file of the results"),
        figure=(str(PICTURE), "file of the figure"),
    )


def main() -> None:
    """Make the fits that are missing, print the table and draw the figure."""
    given = parser().parse_args()
    file = Path(given.file)
    if given.settings:
        measure(given, file)
    results = records.read(file)
    rows = compare(results)
    print(table(rows, results))
    draw(rows, Path(given.figure))


def measure(given: argparse.Namespace, file: Path) -> None:
    """Fit every setting in every way, except for what the file has."""
    from fmnist_exp.config import files as experiments
    from fmnist_exp.data import dataset
    from fmnist_exp.experiment import resolve
    from fmnist_exp.tuning.space import SearchSpace

    config = experiments.load(given.experiment, {"seed": given.seed})
    data = dataset.load(config.data, config.seed)
    config, _ = resolve.choose_precision(config, data)
    precision = config.training.precision
    final = {**(config.final or {}), "training.epochs": given.epochs}
    content = experiments.override(config, {"final": final, "training.precision": "auto"}).to_yaml()
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    done = {(entry["digest"], entry["setting"], entry["fit"]) for entry in records.read(file)}
    space = SearchSpace(config)
    longer = SearchSpace(experiments.override(config, {**final, "final": None}))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=given.seed))
    study.enqueue_trial(space.defaults())
    for number in range(given.settings):
        trial = study.ask()
        fits = {TRIAL: (space.suggest(trial), 1.0), WHOLE: (longer.apply(trial.params), 1.0)}
        own = fits[TRIAL][0]
        for epochs in SHORT:
            fits[f"{TRIAL} with epochs={epochs}"] = experiments.override(own, {"training.epochs": epochs}), 1.0
        fits |= {f"{TRIAL} on {part:.0%} of the images": (own, part) for part in PARTS}
        for name, (setting, part) in fits.items():
            if number >= given.first and (digest, number, name) not in done:
                shared = {"params": trial.params, "processor": reporting.processor(), "precision": precision}
                entries = [
                    {"digest": digest, "setting": number, "fit": title} | shared | measured
                    for title, measured in fit(name, setting, data, part).items()
                ]
                records.append(file, *entries)
                print(f"setting {number}, {name}: {entries[0]['curve'][-1]:.4f}", flush=True)


def fit(name: str, config: Any, data: Any, part: float) -> dict[str, dict[str, Any]]:
    """Fit an experiment on a part of the training images.

    Returns:
        By name, the curve of validation accuracies and the seconds. A trial also has the curve of its averaged weights.
    """
    from fmnist_exp import models
    from fmnist_exp.backend import layers, seeds
    from fmnist_exp.config import files as experiments
    from fmnist_exp.data.dataset import FashionMNIST
    from fmnist_exp.training import fit as fitting

    count = int(len(data.train.images) * part)
    train = Split(data.train.name, data.train.images[:count], data.train.labels[:count])
    seeds.prepare(config.seed, config.training.precision)
    model = layers.accelerate(models.build(config.model))
    images = FashionMNIST(train, data.validation, data.test, data.source)
    if name != TRIAL:
        found = fitting.fit(model, config, images)
        return {name: {"curve": accuracies(found), "seconds": found.seconds}}
    # an average changes nothing in the weights that it is taken of, so one fit gives both curves
    last = LastWeights(data.validation)
    found = fitting.fit(model, experiments.override(config, {"training.ema": MOMENTUM}), images, [last])
    shared = {"seconds": found.seconds}
    return {TRIAL: {"curve": last.curve, **shared}, AVERAGED: {"curve": accuracies(found), **shared}}


def accuracies(found: Any) -> list[float]:
    """Return the validation accuracy of each epoch of a fit."""
    return [float(epoch.metrics["val_accuracy"]) for epoch in found.epochs]


class LastWeights(FitCallback):
    """Measures the weights of each epoch's last step, where the fit validates their moving average."""

    def __init__(self, validation: Split) -> None:
        self.curve: list[float] = []
        self._validation = validation

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Put the weights into the network, measure them, and put the averages back."""
        weights, state = checkpoint.model.trainable_variables, checkpoint.state()
        averages = [np.array(weight) for weight in weights]
        for weight, array in zip(weights, state.callbacks["ema"].arrays, strict=True):
            weight.assign(array)
        images, labels = self._validation.images, self._validation.labels
        batches = [images[first : first + BATCH] for first in range(0, len(images), BATCH)]
        answers = [np.array(checkpoint.model(batch, training=False), dtype=float).argmax(axis=1) for batch in batches]
        self.curve.append(float(np.mean(np.concatenate(answers) == labels)))
        for weight, array in zip(weights, averages, strict=True):
            weight.assign(array)


def compare(results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return a row for each cheap score of the settings that were fitted in every way, the cheapest score first."""
    newest = results[-1]["digest"]
    by_setting: dict[int, dict[str, Mapping[str, Any]]] = {}
    for entry in results:
        if entry["digest"] == newest:
            by_setting.setdefault(entry["setting"], {})[entry["fit"]] = entry
    most = max(map(len, by_setting.values()))
    whole = [fits for fits in by_setting.values() if len(fits) == most]
    final = np.array([fits[WHOLE]["curve"][-1] for fits in whole])
    rows = []
    for name, first in whole[0].items():
        for epoch in range(1, len(first["curve"]) + (name != WHOLE)):
            scores = np.array([fits[name]["curve"][epoch - 1] for fits in whole])
            share = epoch / len(first["curve"])
            alike = [fits for fits in whole if same_machine(fits[name], fits[WHOLE])] or whole
            cost = statistics.mean(share * fits[name]["seconds"] / fits[WHOLE]["seconds"] for fits in alike)
            title = name if share == 1 else f"{name}, after epoch {epoch}"
            regret = float(final.max() - final[scores.argmax()])
            rows.append(Row(title, cost, spearman(scores, final), interval(scores, final), regret))
    return sorted(rows, key=lambda row: row.cost)


def same_machine(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two fits ran on the same kind of processor in the same precision, so that their times compare."""
    return all(one[name] == other[name] for name in ("processor", "precision"))


def spearman(scores: np.ndarray, final: np.ndarray) -> float:
    """Return Spearman's rank correlation; 0 if all scores are equal, which rank nothing."""
    if len(set(scores)) < 2 or len(set(final)) < 2:
        return 0.0
    return float(stats.spearmanr(scores, final).statistic)


def interval(scores: np.ndarray, final: np.ndarray) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the rank correlation over the settings."""
    drawn = np.random.default_rng(0).integers(0, len(final), size=(RESAMPLES, len(final)))
    found = [spearman(scores[chosen], final[chosen]) for chosen in drawn]
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def table(rows: Sequence[Row], results: Sequence[Mapping[str, Any]]) -> str:
    """Return the table in Markdown, with what it was measured on."""
    entries = [entry for entry in results if entry["digest"] == results[-1]["digest"]]
    count = len({entry["setting"] for entry in entries})
    machines = ", ".join(sorted({f"{entry['processor']} in {entry['precision']}" for entry in entries}))
    lines = ["| score | cost, of the final fit | rank correlation (95 % interval) | regret, points |"]
    lines.append("|---|---:|---:|---:|")
    for row in rows:
        low, high = row.interval
        shown = f"{row.correlation:.2f} ({low:.2f} to {high:.2f})"
        lines.append(f"| {row.name} | {row.cost:.1%} | {shown} | {100 * row.regret:.2f} |")
    return "\n".join([*lines, "", f"{count} settings; {machines}."])


def draw(rows: Sequence[Row], file: Path) -> None:
    """Draw the rank correlation of each score, with its interval, over its cost."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    kinds = list(dict.fromkeys(row.name.partition(",")[0] for row in rows))
    for kind in kinds:
        own = [row for row in rows if row.name.partition(",")[0] == kind]
        middle = [row.correlation for row in own]
        spread = [
            [row.correlation - row.interval[0] for row in own],
            [row.interval[1] - row.correlation for row in own],
        ]
        axes.errorbar([100 * row.cost for row in own], middle, spread, marker="o", capsize=2, label=kind)
    axes.set_xscale("log")
    axes.set_xticks((2, 5, 10, 20, 50, 100), labels=("2", "5", "10", "20", "50", "100"))
    axes.set_xlabel("cost, % of the final fit")
    axes.set_ylabel("rank correlation with the final score")
    axes.legend()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
