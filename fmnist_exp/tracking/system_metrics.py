"""The load of the machine during a run: CPU, memory, disk and network, for the run's System metrics tab."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from fmnist_exp.tracking.run import Run

FIRST_SAMPLE = 0.25  # seconds over which the first CPU load is measured
SECONDS = 10.0  # between two samples, unless MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL says otherwise
THREAD = "SystemMetricsMonitor"
PREFIX = "system/"  # of the names of these metrics, under which the MLflow UI looks for them


@contextmanager
def monitoring(run: Run) -> Iterator[None]:
    """Log the machine's load to `run` every 10 seconds while the block runs; a resumed run continues its curves.

    Nothing is logged if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is false; MLflow itself reads it only in its fluent API.
    MLflow's own monitor would ask the store before each sample whether the run is still open.
    """
    if os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true").lower() in ("false", "0"):
        yield
        return
    ended = threading.Event()
    thread = threading.Thread(target=_log, args=(run, _first_step(run), ended), name=THREAD, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _first_step(run: Run) -> int:
    """Return the step after the last one that the run has, or 0 if the store could not be asked for its steps."""
    if not run.resumed or run.known_steps is None:
        return 0
    known = run.client.get_metric_history(run.id, f"{PREFIX}cpu_utilization_percentage")
    return max((entry.step for entry in known), default=-1) + 1


def _log(run: Run, step: int, ended: threading.Event) -> None:
    seconds = float(os.environ.get("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL") or SECONDS)
    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]  # type: ignore[no-untyped-call]
    with suppress(ImportError, RuntimeError):  # there is no GPU
        monitors.append(GPUMonitor())  # type: ignore[no-untyped-call]
    psutil.cpu_percent()  # it returns 0 for the first call of each thread
    time.sleep(FIRST_SAMPLE)
    while True:
        for monitor in monitors:
            monitor.collect_metrics()
        if ended.wait(seconds):
            return
        found = {name: value for monitor in monitors for name, value in monitor.aggregate_metrics().items()}
        run.log_metrics({f"{PREFIX}{name}": value for name, value in found.items()}, step)
        step += 1
        for monitor in monitors:
            monitor.clear_metrics()
