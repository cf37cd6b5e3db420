"""Train the published systems and the platform's own networks, one MLflow run per seed, and write docs/results.md.

An experiment is not trained again while the tracking store has a finished run with the same settings, so the command
can be stopped and repeated.
Usage: python -m benchmarks.systems [EXPERIMENT …] [--seeds 0 1 2] [--table-only]
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks.processes import PROJECT, python
from benchmarks.reporting import processor, spread
from fmnist_exp.config import files
from fmnist_exp.config.fields import flatten
from fmnist_exp.tracking import store
from fmnist_exp.tracking.run import param_text

DOCS = PROJECT / "docs"
STORE = "systems"  # MLflow experiment
SPLIT_SEED = 0  # all runs share a split, so that an ensemble of their models can be scored
SEEDS = (0, 1, 2)

# experiment → the test accuracy that its README claims, and the one of its recipe in plain Keras, percent
SYSTEMS: dict[str, tuple[str, str]] = {
    "naive": ("10", "10"),
    "l2_mlp": ("87.2", "85.3"),
    "funnel_mlp": ("89.2", "87.8"),
    "simple_cnn": ("89.5", "89.3"),
    "augmented_cnn": ("none", "89.8 after 2 epochs"),
    "deep_cnn": ("about 93", "93.1"),
}
OURS = ("mlp", "small_cnn", "cnn")
WANTED = {"l2_mlp": 87.2, "funnel_mlp": 89.2, "simple_cnn": 89.5, "deep_cnn": 93.0} | {
    "mlp": 91.0,
    "small_cnn": 93.5,
    "cnn": 94.0,
}
ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Result:
    """The metrics of a finished run."""

    run_id: str
    seed: int
    metrics: dict[str, float]
    curve: list[tuple[float, float]]  # training time so far in seconds, validation accuracy


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", default=[*SYSTEMS, *OURS, ENSEMBLE], help="names (default: all)")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), help="one run for each")
    parser.add_argument("--table-only", action="store_true", help="train nothing, only write the page")
    return parser


def main() -> None:
    """Train what is missing and write the page after each run."""
    arguments = parser().parse_args()
    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{PROJECT}/mlflow.db")
    os.environ["MLFLOW_EXPERIMENT_NAME"] = STORE
    os.chdir(PROJECT)
    write()
    for seed in arguments.seeds:  # the first seed of all experiments comes before the second of any
        for name in arguments.experiments:
            if name != ENSEMBLE and not arguments.table_only and not find(name, seed):
                train(["train", "--experiment", name, *options(seed)])
                write()
    members = [result.run_id for seed in SEEDS for result in find("cnn", seed)]
    if ENSEMBLE in arguments.experiments and len(members) > 1 and not arguments.table_only and not ensemble(members):
        train(["ensemble", "--members", ",".join(f"runs:/{run_id}" for run_id in members), "--register", "false"])
        write()


def options(seed: int) -> list[str]:
    return ["--seed", str(seed), "--data.split_seed", str(SPLIT_SEED)]


def train(arguments: Sequence[str]) -> None:
    print("fmnist-exp", *arguments, flush=True)
    subprocess.run(python("fmnist_exp", *arguments), check=True)


def find(name: str, seed: int) -> list[Result]:
    """Return the newest finished run with the settings that the experiment's file has now, or an empty list."""
    config = files.load(name, {"seed": seed, "data.split_seed": SPLIT_SEED})
    wanted = {key: value for key, value in flatten(config).items() if not key.startswith("gate.")}
    if wanted["training.precision"] == "auto":  # a run logs the precision that was chosen for it
        del wanted["training.precision"]
    for run in finished(name):
        if all(_same(run.data.params.get(key), value) for key, value in wanted.items()):
            return [result(run)]
    return []


def ensemble(members: Sequence[str]) -> list[Result]:
    """Return the newest ensemble of these runs, or an empty list."""
    known = [run for run in finished(ENSEMBLE) if all(member in run.data.params["model.members"] for member in members)]
    return [result(run) for run in known[:1]]


def finished(name: str) -> list[Any]:
    """Return the finished runs of an experiment, the newest first."""
    client = store.connect()
    kept = client.get_experiment_by_name(STORE)
    query = f"tags.`fmnist.experiment` = '{name}' and attributes.status = 'FINISHED'"
    return list(client.search_runs([kept.experiment_id], query)) if kept else []


def result(run: Any) -> Result:
    """Read the metrics of a run."""
    client, run_id = store.connect(), run.info.run_id
    seconds = [metric.value for metric in client.get_metric_history(run_id, "epoch_seconds")]
    accuracies = [metric.value for metric in client.get_metric_history(run_id, "val_accuracy")]
    curve = [(sum(seconds[: i + 1]), accuracy) for i, accuracy in enumerate(accuracies)]
    return Result(run_id, int(run.data.params["seed"]), dict(run.data.metrics), curve)


def _same(logged: str | None, value: object) -> bool:
    return logged == param_text(value) or logged == json.dumps(value)


def write() -> None:
    """Write docs/results.md and its figures from the runs in the store."""
    found = {name: [r for seed in SEEDS for r in find(name, seed)] for name in (*SYSTEMS, *OURS)}
    members = [result.run_id for result in found["cnn"]]
    found[ENSEMBLE] = ensemble(members) if len(members) > 1 else []
    rows = [row(name, results) for name, results in found.items()]
    missing = [
        f"{name} ({len(SEEDS) - len(results)} of {len(SEEDS)} seeds)"
        for name, results in found.items()
        if len(results) < len(SEEDS) and name != ENSEMBLE
    ]
    missing += [] if found[ENSEMBLE] else [ENSEMBLE]
    status = f"Missing runs: {', '.join(missing)}.\n" if missing else "All runs are complete.\n"
    text = HEAD.format(machine=machine(), seeds=", ".join(map(str, SEEDS)), rows="\n".join(rows), status=status)
    (DOCS / "results.md").write_text(text + run_ids(found), encoding="utf-8")
    print(status.strip(), flush=True)
    shown = {name: results for name, results in found.items() if results and results[0].curve and name != ENSEMBLE}
    if shown:
        curves(shown).savefig(DOCS / "pictures" / "systems-curves.png")
        times(shown).savefig(DOCS / "pictures" / "systems-seconds.png")


HEAD = """# The five published systems and the platform's own networks

`make results` (`python -m benchmarks.systems`) writes this page and trains the missing runs. There is one MLflow run
per seed ({seeds}). All runs share one split (54,000 images for training, 6,000 for validation) and are scored on the
test set once, at their end. Accuracies are in percent, mean ± standard deviation over the seeds. The standard error of
a single test score near 93 % is 0.25 percentage points.

"Headline" is the accuracy that a system's own README claims. "Plain Keras" is what its recipe reached when written as
in a notebook. The comment at the top of each file in [experiments/](../experiments) lists what was added to the recipe.
The time is the fastest of the seeds, because other work shared the cores during some runs. The ensemble averages the
three `cnn` networks; its time is that of scoring it.

Machine: {machine}.

| experiment | parameters | epochs | fit, s | validation | test | headline | plain Keras | seeds |
|---|---:|---:|---:|---:|---:|---:|---:|---:|
{rows}

{status}
![Validation accuracy by epoch](pictures/systems-curves.png)

![Test accuracy against training time, one point per seed](pictures/systems-seconds.png)
"""


def row(name: str, results: Sequence[Result]) -> str:
    """Return an experiment's row of the table."""
    headline, plain = SYSTEMS.get(name, (f"{WANTED[name]} wanted" if name in WANTED else "", ""))
    if not results:
        return f"| `{name}` | | | | | | {headline} | {plain} | 0 |"
    metrics = [result.metrics for result in results]
    epochs = spread([len(result.curve) for result in results], 0)
    columns = [
        f"{metrics[0]['parameters']:,.0f}",
        epochs,
        f"{least_seconds(results):,.0f}",
        spread([100 * m.get("averaged_val_accuracy", m["best_val_accuracy"]) for m in metrics], 2),
        spread([100 * m["test_accuracy"] for m in metrics], 2),
    ]
    return f"| `{name}` | {' | '.join(columns)} | {headline} | {plain} | {len(results)} |"


def least_seconds(results: Sequence[Result]) -> float:
    return min(result.metrics["fit_seconds"] for result in results)


def run_ids(found: dict[str, list[Result]]) -> str:
    """Return the section that lists every run."""
    lines = [
        f"- `{name}`: "
        + ", ".join(f"{100 * r.metrics['test_accuracy']:.2f} (seed {r.seed}, {r.run_id})" for r in results)
        for name, results in found.items()
        if results
    ]
    rows = "\n".join(lines)
    return f"\n## Runs\n\nThe test accuracy of each run in percent, with its seed and run id:\n\n{rows}\n"


def machine() -> str:
    return f"{os.cpu_count()} cores of {processor()}, no GPU, shared; Python {platform.python_version()}"


def curves(found: dict[str, list[Result]]) -> Figure:
    """Draw the validation accuracy by epoch, the mean over seeds."""
    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    axes = figure.subplots()
    for name, results in found.items():
        epochs = min(len(result.curve) for result in results)
        mean = [statistics.mean(100 * result.curve[i][1] for result in results) for i in range(epochs)]
        if mean[-1] > 50:
            style = {"linewidth": 2.5} if name in OURS else {"linestyle": "--"}
            axes.plot(range(1, epochs + 1), mean, marker=".", label=name, **style)
    axes.set(xlabel="epoch", ylabel="validation accuracy, %", title="Validation accuracy by epoch", ylim=(80, None))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def times(found: dict[str, list[Result]]) -> Figure:
    """Draw the test accuracy of each run against the shortest training time of its experiment."""
    figure = Figure(figsize=(8, 5), dpi=100, layout="constrained")
    axes = figure.subplots()
    for name, results in found.items():
        points = [(least_seconds(results), 100 * result.metrics["test_accuracy"]) for result in results]
        if points[0][1] > 50:
            axes.scatter(*zip(*points, strict=True), label=name, marker="o" if name in OURS else "s", s=40)
    axes.set(xlabel="training time, s", ylabel="test accuracy, %", xscale="log")
    axes.set_title("Test accuracy against training time")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


if __name__ == "__main__":
    main()
