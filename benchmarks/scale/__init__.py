"""Measure a search of 10,000 trials: the time of a trial, memory and the databases' sizes as the study grows.

The trials only log curves: 3 epochs of 6 metrics each, through the real search with its study, sampler, pruner and
tracking. A call that was stopped is continued by the next one with the same folder.

    python -m benchmarks.scale --folder FOLDER                      # SQLite: about half an hour on 2 idle cores
    python -m benchmarks.scale --folder FOLDER --store postgresql
    python -m benchmarks.scale --folder FOLDER --table-only
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.processes import PROJECT

FOLDER = PROJECT / "scale"
STORES = ("sqlite", "postgresql")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument(
        "--folder", type=Path, default=FOLDER, help="folder of the databases and of the log, one per store"
    )
    made.add_argument("--store", choices=STORES, default="sqlite", help="database of MLflow and of the study")
    made.add_argument("--trials", type=int, default=10_000, help="number of trials (default: 10,000)")
    made.add_argument("--workers", type=int, default=1, help="number of workers (default: 1)")
    made.add_argument("--table-only", action="store_true", help="run nothing, only print the table")
    return made
