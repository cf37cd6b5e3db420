"""Run `python -m benchmarks.scale`."""

from __future__ import annotations

import os
from contextlib import chdir

from benchmarks.scale import costs, databases, parser


def main() -> int:
    """Run the trials that are missing, print the table, and return 0 if the last hundred are as fast as wanted."""
    given = parser().parse_args()
    folder = given.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if not given.table_only:
        with databases.opened(given.store, folder) as found, chdir(folder):
            os.environ["MLFLOW_TRACKING_URI"] = found.tracking
            # imported here because it takes seconds, and MLflow reads the address of the store
            from benchmarks.scale import search

            search.run(given.trials, given.workers, found.studies, search.CostLog(folder, found.bytes))
    return costs.show(folder)


if __name__ == "__main__":
    raise SystemExit(main())
