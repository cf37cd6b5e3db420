"""The fits that docs/results.md needs: make them, and find their results."""

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlflow.entities import Run

from benchmarks import processes
from benchmarks.runs import Runs, Wanted, accuracy
from fmnist_exp.tracking.names import Metric

PEERS = processes.PROJECT / "benchmarks" / "peers"
SEEDS = (0, 1, 2)
ONE_SPLIT = 0  # the seed of the split that all runs of one column share
ENSEMBLE = "ensemble"

# published system → the test accuracy that its own README claims, percent
PUBLISHED = {
    "naive": "10",
    "l2_mlp": "87.2",
    "funnel_mlp": "89.2",
    "simple_cnn": "89.5",
    "augmented_cnn": "none",
    "deep_cnn": "about 93",
}
OURS = {"mlp": "91.0 wanted", "small_cnn": "93.5 wanted", "cnn": "94.0 wanted", "cnn_95": "about 95 wanted"}
PLAIN = tuple(name for name in PUBLISHED if (PEERS / f"{name}_keras.py").exists())


@dataclass(frozen=True)
class Results:
    """The results under the conditions of `runs`."""

    runs: Runs

    def one_split(self, name: str) -> dict[int, Run]:
        """Return an experiment's runs on the common split, by seed."""
        return self._found(name, {seed: ONE_SPLIT for seed in SEEDS})

    def own_splits(self, name: str) -> dict[int, Run]:
        """Return an experiment's runs with a split per seed, by seed. That of seed 0 is also on the common split."""
        return self._found(name, {seed: seed for seed in SEEDS})

    def ensemble(self) -> Run | None:
        """Return the ensemble of all runs of `cnn` on the common split."""
        members = [run.info.run_id for run in self.one_split("cnn").values()]
        for run in self.runs.finished(ENSEMBLE) if len(members) == len(SEEDS) else ():
            if all(member in run.data.params["model.members"] for member in members):
                return run
        return None

    def plain(self, name: str) -> dict[int, float]:
        """Return the test accuracies of a system's recipe in plain Keras with a split per seed, in percent, by seed."""
        found = {}
        for seed in SEEDS:
            file = self.folder(name, seed) / "curve.json"
            curve: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
            if curve.get("done"):
                found[seed] = 100 * float(curve["test_accuracy"])
        return found

    def folder(self, name: str, seed: int) -> Path:
        """Return the folder of a fit in plain Keras; its name depends on the recipe, the libraries and the machine."""
        digest = self.runs.version.digest([PEERS / f"{name}_keras.py", PEERS / "curve.py"])
        return processes.PROJECT / "bench-systems" / f"{name}-{seed}-{digest}"

    def _found(self, name: str, splits: Mapping[int, int]) -> dict[int, Run]:
        runs = {seed: self.runs.find(wanted(name, seed, split)) for seed, split in splits.items()}
        return {seed: run for seed, run in runs.items() if run}


def wanted(name: str, seed: int, split_seed: int) -> Wanted:
    """Return a run of an experiment, which is scored once on the test set, at its end."""
    return Wanted(name, {"seed": seed, "data.split_seed": split_seed}, score_test=True)


def missing(store: Results, names: Sequence[str], seeds: Sequence[int]) -> Iterator[Callable[[], None]]:
    """Yield the fits that are missing, as functions that make them."""
    for seed in seeds:
        for name in names:
            if name == ENSEMBLE:
                continue
            for split_seed in sorted({ONE_SPLIT, seed}):
                run = wanted(name, seed, split_seed)
                if not store.runs.find(run):
                    yield partial(store.runs.train, run)
            if name in PLAIN and seed not in store.plain(name):
                yield partial(fit_plain, store, name, seed)
    members = store.one_split("cnn")
    if ENSEMBLE in names and len(members) == len(SEEDS) and not store.ensemble():
        addresses = ",".join(f"runs:/{run.info.run_id}" for run in members.values())
        yield partial(store.runs.command, ENSEMBLE, members=addresses, register="false", score_test="true")


def fit_plain(store: Results, name: str, seed: int) -> None:
    """Fit a recipe in plain Keras, or resume its fit. Raises CalledProcessError if it fails."""
    arguments = processes.python(f"benchmarks.peers.{name}_keras", store.folder(name, seed), "--seed", seed)
    print(*arguments[2:], flush=True)
    subprocess.run(arguments, check=True, cwd=processes.PROJECT)


def incomplete(store: Results) -> list[str]:
    """Return descriptions of the results that are missing."""
    lines = []
    for name in (*PUBLISHED, *OURS):
        kinds: dict[str, Mapping[int, object]] = {"on one split": store.one_split(name)}
        kinds["with a split per seed"] = store.own_splits(name)
        kinds |= {"in plain Keras": store.plain(name)} if name in PLAIN else {}
        absent = {what: [str(seed) for seed in SEEDS if seed not in found] for what, found in kinds.items()}
        if all(len(seeds) == len(SEEDS) for seeds in absent.values()):
            lines.append(f"all of `{name}`")
        else:
            lines += [f"`{name}` {what}, seed {', '.join(seeds)}" for what, seeds in absent.items() if seeds]
    return lines if store.ensemble() else [*lines, f"`{ENSEMBLE}`"]


def accuracies(found: Mapping[int, Run], split: str) -> list[float]:
    """Return the accuracies of runs on "validation" or "test", in percent."""
    return [accuracy(run, split) for run in found.values()]


def parameters(found: Mapping[int, Run]) -> float:
    """Return the number of parameters of the runs' network."""
    return float(next(iter(found.values())).data.metrics[Metric.PARAMETERS])
