"""The load of the machine during a run: CPU, memory, disk and network, for the run's System metrics tab."""

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

from fmnist_exp.backend import interrupts
from fmnist_exp.tracking.run import Run

FIRST_SAMPLE = 0.25  # seconds over which the first CPU load is measured


@contextmanager
def monitoring(run: Run) -> Iterator[None]:
    """Log the machine's load to `run` every 10 seconds while the block runs.

    Nothing is logged if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING is false; MLflow itself reads it only in its fluent API.
    """
    if os.environ.get("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true").lower() in ("false", "0"):
        yield
        return
    # MLflow would print that the monitor started, that there is no GPU, and that a trial's run was deleted meanwhile
    logging.getLogger("mlflow.system_metrics").setLevel(logging.CRITICAL)
    monitor: Any = _Monitor(run.id, tracking_uri=run.client.tracking_uri)  # type: ignore[no-untyped-call]
    monitor.start()
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupts.release(interrupt)  # the monitor writes its last samples
        raise
    finally:
        monitor.finish()


class _Monitor(SystemMetricsMonitor):
    """MLflow's monitor, with a measured first CPU load: psutil returns 0 for the first call of each thread."""

    primed = False

    def collect_metrics(self) -> dict[str, float]:
        """Return one sample of every metric."""
        if not self.primed:
            self.primed = True
            psutil.cpu_percent()
            time.sleep(FIRST_SAMPLE)
        samples: dict[str, float] = super().collect_metrics()  # type: ignore[no-untyped-call]
        return samples
