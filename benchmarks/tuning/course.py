"""Draw the accuracy of searches and fits against time: the best validation accuracy so far, as MLflow has it.

Each argument is LABEL=STORE or LABEL=STORE#RUN_ID: a tracking store, and a search or a fit in it; without an id, the
newest search. Curves with the same label have the same colour. The clock starts with the run.

    python -m benchmarks.tuning.course before=sqlite:///old/mlflow.db now=sqlite:///mlflow.db
    python -m benchmarks.tuning.course search=sqlite:///mlflow.db fit=sqlite:///mlflow.db#RUN_ID --lowest 92
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks.processes import PROJECT
from benchmarks.tuning.race_page import Attempt

PICTURE = PROJECT / "docs" / "pictures" / "main-job.png"
COLOURS = "C0", "C1", "C2", "C3", "C4", "C5"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the runs and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="LABEL=STORE[#RUN_ID]")
    parser.add_argument("--figure", type=Path, default=PICTURE, help="file of the figure")
    parser.add_argument("--lowest", type=float, default=85.0, help="accuracy at the lower end of the figure, %%")
    given = parser.parse_args(arguments)
    if wrong := [text for text in given.runs if "=" not in text]:
        parser.error(f"{wrong[0]!r} is not of the form LABEL=STORE")
    draw([read(text, number) for number, text in enumerate(given.runs)], given.lowest).savefig(given.figure)


def read(text: str, number: int) -> Attempt:
    """Return the course of a run and its children."""
    import mlflow

    label, _, place = text.partition("=")
    store, _, run_id = place.partition("#")
    client = mlflow.MlflowClient(store)
    everything = [found.experiment_id for found in client.search_experiments()]
    if not run_id:
        newest = ["attributes.start_time DESC"]
        searches = client.search_runs(everything, "tags.`fmnist.kind` = 'tune'", max_results=1, order_by=newest)
        if not searches:
            raise SystemExit(f"{store} has no search")
        run_id = searches[0].info.run_id
    root = client.get_run(run_id)
    children = client.search_runs(
        [root.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'", max_results=1000
    )
    if root.info.end_time is None:
        raise SystemExit(f"run {run_id} of {store} has not ended")
    start, end = root.info.start_time / 1000, root.info.end_time / 1000
    points = [
        (metric.timestamp / 1000 - start, position, metric.value)
        for position, run in enumerate([root, *children])
        for metric in client.get_metric_history(run.info.run_id, "val_accuracy")
    ]
    return Attempt(label, "", number, end - start, version="", machine="", points=points)


def draw(attempts: Sequence[Attempt], lowest: float) -> Figure:
    """Draw the best accuracy so far of each attempt, up to its end."""
    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    axes = figure.subplots()
    labels = list(dict.fromkeys(attempt.contestant for attempt in attempts))
    for attempt in attempts:
        seconds, accuracies = zip(*attempt.curve(), (attempt.seconds, attempt.best), strict=True)
        first = attempt is next(other for other in attempts if other.contestant == attempt.contestant)
        axes.step(
            [s / 60 for s in seconds],
            [100 * accuracy for accuracy in accuracies],
            where="post",
            color=COLOURS[labels.index(attempt.contestant) % len(COLOURS)],
            label=attempt.contestant if first else None,
        )
    axes.set(xlabel="minutes since the start of the run", ylabel="best validation accuracy so far, %", xlim=(0, None))
    axes.set_ylim(bottom=lowest)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    main()
