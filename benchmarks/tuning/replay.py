"""Replay searches on real fits: a table of learning curves of settings that were fitted whole, in virtual time.

The contestants are those of benchmarks.lcbench that need no environment of their own: this platform's driver with the
fields of the experiment, random search, ASHA and plain Optuna. The table is what benchmarks.tuning.cheap_scores has
measured. A setting that a search asks for gets the curve of the setting in the table that is nearest to it. All begin
with the same random setting. (The own setting of `tune_cnn` is the best one of its table, so that every search that
began with it and trained it to the end would be done.)

    python -m benchmarks.tuning.replay                          # the fits of tune_cnn in docs/cheap-scores
    python -m benchmarks.tuning.replay --experiment tune_mlp --file tune_mlp.jsonl
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from benchmarks import arguments, records
from benchmarks.lcbench import ours, report
from benchmarks.lcbench.ledger import Array, Ledger, Problem, Spent
from benchmarks.lcbench.peers import PEERS
from benchmarks.lcbench.results import Result
from benchmarks.lcbench.virtual import VirtualPool
from benchmarks.tuning.cheap_scores import FILE
from fmnist_exp.config import files
from fmnist_exp.tuning.sampling.encoding import from_unit, row
from fmnist_exp.tuning.space import SearchSpace

OURS = "fmnist_exp"
WHOLE = "trial"  # the fits of cheap_scores that are those of the search's trials


class Table:
    """The curves of an experiment's settings.

    Args:
        space: the search of the experiment.
        fits: the parameters of each setting and the validation accuracies of its trial, one per epoch.
    """

    def __init__(self, space: SearchSpace, fits: Sequence[tuple[Mapping[str, Any], Sequence[float]]]) -> None:
        self.space = space
        trial = optuna.create_study().ask()
        space.suggest(trial)
        self.kinds = trial.distributions
        self.curves = np.array([curve for _, curve in fits])  # (settings, epochs)
        self._places = np.array([row(params, self.kinds) for params, _ in fits])

    def curve(self, params: Mapping[str, Any]) -> Array:
        """Return the curve of the setting that is nearest to this one; shape (epochs,)."""
        apart = np.linalg.norm(self._places - row(params, self.kinds), axis=1)
        nearest: Array = self.curves[int(apart.argmin())]
        return nearest

    def draw(self, generator: np.random.Generator) -> dict[str, Any]:
        """Return a random setting."""
        return {name: from_unit(float(generator.random()), kind) for name, kind in self.kinds.items()}

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Return the setting of one of Optuna's trials."""
        self.space.suggest(trial)
        return trial.params


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return arguments.parser(
        __doc__,
        experiment=("tune_cnn", "experiment whose fits the file has"),
        file=(str(FILE), "file of the fits"),
        seeds=(30, "searches of each contestant"),
        budget=(8.0, "budget of a search, in full trials"),
    )


def main() -> None:
    """Run the searches and print the table."""
    given = parser().parse_args()
    table = read(Path(given.file), SearchSpace(files.load(given.experiment, {})))
    budget = round(given.budget * table.curves.shape[1])
    names = [OURS, *PEERS]
    found = [search(name, table, seed, budget) for seed in range(given.seeds) for name in names]
    print(f"{len(table.curves)} settings of {given.experiment}. Each seed counts as a task.\n")
    print(report.page(found, names, budget, table.curves.shape[1], "the settings of the table"))


def read(file: Path, space: SearchSpace) -> Table:
    """Return the table of the fits that a file has, of the newest digest."""
    entries = records.read(file)
    own = [entry for entry in entries if entry["digest"] == entries[-1]["digest"] and entry["fit"] == WHOLE]
    return Table(space, [(entry["params"], entry["curve"]) for entry in own])


def search(contestant: str, table: Table, seed: int, budget: int) -> Result:
    """Run one search on the table and return its result. The seed stands for a task."""
    ledger, space, final = Ledger(budget), table.space, table.curves.max(axis=1)
    begin = table.draw(np.random.default_rng(seed))
    if contestant == OURS:
        limits = {"seed": seed, "search.n_trials": 100_000, "search.timeout": 1000}
        own = space.apply(begin).model_copy(update={"search": space.search})
        config = files.override(own, {**limits, "training.epochs": table.curves.shape[1]})
        pool = VirtualPool(lambda task: table.curve(space.parameters(space.settings(task.config))), ledger)
        ours.search(config, pool, budget)
    else:
        kinds = {"epochs": table.curves.shape[1], "draw": table.draw, "suggest": table.suggest}
        problem = functools.partial(Problem, table.curve, ledger, begin, seed)
        with suppress(Spent):
            PEERS[contestant](problem(**kinds))
    worst, top = float(final.min()), float(final.max())
    return Result(contestant, "1", f"seed {seed}", 0, budget, ledger.trials, 0.0, worst, top, ledger.best)


if __name__ == "__main__":
    main()
