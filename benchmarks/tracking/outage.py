"""Fit while the tracking server is away for minutes, and draw what the fit, the spool and the server did meanwhile.

A network is fitted on the real images against an `mlflow server` on this machine. After a minute the connection to it
is refused; minutes later it is accepted again. Once a second the records that wait and those that were sent are counted
in the spool, from outside. At the end every epoch must be in MLflow once.

    python -m benchmarks.tracking.outage            # an outage of 5 minutes: about 8 minutes; draws a figure for docs

It prints the numbers and exits with 1 if an epoch is missing or twice there.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import arguments, processes, reporting
from benchmarks.chaos import services
from benchmarks.line import Line

EPOCHS = 1000  # the most; there is no time for them


@dataclass
class Trace:
    """The observations, each with its time in seconds after the run began."""

    begin: float = field(default_factory=time.monotonic)
    epochs: list[tuple[float, float]] = field(default_factory=list)  # images per second
    waiting: list[tuple[float, int]] = field(default_factory=list)  # records
    sent: list[tuple[float, int]] = field(default_factory=list)  # records
    away: tuple[float, float] = (0.0, 0.0)

    def now(self) -> float:
        """Return the time."""
        return time.monotonic() - self.begin

    def speeds(self) -> dict[str, list[float]]:
        """Return the images per second before, during and after the outage."""
        parts: dict[str, list[float]] = {"before": [], "during": [], "after": []}
        for at, speed in self.epochs[2:]:  # the first compiles
            parts["before" if at < self.away[0] else "during" if at < self.away[1] else "after"].append(speed)
        return parts


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return arguments.parser(
        __doc__,
        minutes=(5.0, "length of the outage"),
        around=(1.0, "minutes before it, and after it"),
        figure=(str(processes.PROJECT / "docs" / "pictures" / "outage.png"), "file of the figure"),
    )


def main() -> int:
    """Fit, print the numbers, draw the figure, and return the exit code."""
    given = parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="outage-") as made, contextlib.ExitStack() as stack:
        folder = Path(made)
        server, url = services.tracking_server(
            folder, folder / "server.log", f"sqlite:///{folder}/mlflow.db", folder / "artifacts"
        )
        stack.callback(server.kill)
        server.start()
        server.wait()
        line = stack.enter_context(Line(url))
        stack.enter_context(contextlib.chdir(folder))
        os.environ |= {"MLFLOW_TRACKING_URI": line.url, "FMNIST_EXP_SPOOL": str(folder / "spool")}
        trace, steps = fit(line, folder / "spool", given)
    expected = list(range(1, len(trace.epochs) + 1))
    print("\n".join(numbers(trace, steps == expected)))
    draw(trace, Path(given.figure))
    return 0 if steps == expected else 1


def fit(line: Line, spool: Path, given: argparse.Namespace) -> tuple[Trace, list[int]]:
    """Fit with an outage in between; return what was seen, and the steps of the accuracy that MLflow has at the end."""
    from benchmarks.tracking.once import drain
    from fmnist_exp.config import files
    from fmnist_exp.data import dataset
    from fmnist_exp.experiment import run as experiment_run
    from fmnist_exp.tracking import run as runs
    from fmnist_exp.tracking import store
    from fmnist_exp.tracking.names import Metric
    from fmnist_exp.training.events import Epoch, FitCallback

    config = files.load("mlp", {"training.epochs": EPOCHS, "training.precision": "float32"})
    data = dataset.load(config.data, config.seed)
    trace = Trace()

    class Clock(FitCallback):
        def on_epoch(self, epoch: Epoch) -> bool:
            if epoch.number == 1:
                threading.Thread(target=watch, args=[trace, line, spool, given], daemon=True).start()
            trace.epochs.append((trace.now(), len(data.train.images) / epoch.metrics[Metric.EPOCH_SECONDS]))
            return trace.now() > 60 * (given.minutes + 2 * given.around)

    with runs.closing(runs.start_run(store.connect(), "train", "outage", "outage")) as run:
        experiment_run.run_experiment(config, data, run, [Clock()], score_test=False)
    drain()
    client = store.connect()
    (found,) = client.search_runs(["0"])
    history = client.get_metric_history(found.info.run_id, Metric.VAL_ACCURACY)
    return trace, sorted(entry.step for entry in history)


def watch(trace: Trace, line: Line, spool: Path, given: argparse.Namespace) -> None:
    """Close and open the line at their times, and count the records in the spool once a second."""
    seen: dict[str, int] = {}
    begin, end = 60 * given.around, 60 * (given.around + given.minutes)
    while trace.now() < end + 60 * given.around + 30:
        if trace.now() >= begin and trace.away == (0.0, 0.0):
            line.close()
            trace.away = trace.now(), float("inf")
        if trace.now() >= end and trace.away[1] == float("inf"):
            line.open()
            trace.away = trace.away[0], trace.now()
        waiting = 0
        for folder in spool.glob("*"):
            records, sent = count(folder / "records") - 1, count(folder / "sent")  # the first line is the head
            seen[folder.name] = max(sent, seen.get(folder.name, 0))
            waiting += max(0, records - sent)
        trace.waiting.append((trace.now(), waiting))
        trace.sent.append((trace.now(), sum(seen.values())))
        time.sleep(1)


def count(file: Path) -> int:
    """Return the number of whole lines of a file, 0 if there is none."""
    try:
        return file.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def numbers(trace: Trace, is_complete: bool) -> list[str]:
    """Return the numbers as lines of text."""
    away = trace.away[1] - trace.away[0]
    most = max(count for _, count in trace.waiting)
    empty = next((at for at, count in trace.waiting if at > trace.away[1] and count <= 1), None)
    speeds = [
        f"{name} {reporting.spread(values, 0)} (n = {len(values)})" for name, values in trace.speeds().items() if values
    ]
    caught_up = "never" if empty is None else f"{empty - trace.away[1]:.0f} s after it was back"
    return [
        f"The server was away for {away:.0f} s. {reporting.processor()}",
        f"Images per second of the fit, mean ± standard deviation over epochs: {', '.join(speeds)}.",
        f"Median: {', '.join(f'{name} {statistics.median(v):,.0f}' for name, v in trace.speeds().items() if v)}.",
        f"At most {most} records waited; all were sent {caught_up}.",
        f"{len(trace.epochs)} epochs; each is in MLflow {'once' if is_complete else 'NOT exactly once'}.",
    ]


def draw(trace: Trace, file: Path) -> None:
    """Draw the three curves over the time."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(3, 1, sharex=True, figsize=(8, 6), layout="constrained")
    curves = [
        ("images per second\nof the fit", trace.epochs[1:]),
        ("records waiting\nin the spool", trace.waiting),
        ("records sent", trace.sent),
    ]
    for axis, (label, points) in zip(axes, curves, strict=True):
        axis.plot(*zip(*points, strict=True), linewidth=1.2, color="#1f5fa8")
        axis.axvspan(*trace.away, color="#d9534f", alpha=0.15, linewidth=0)
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].set_title("A fit while the tracking server was away (shaded)")
    axes[-1].set_xlabel("seconds after the run began")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)


if __name__ == "__main__":
    raise SystemExit(main())
