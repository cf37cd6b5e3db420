"""The fits that docs/results.md needs: make them, and find their results.

The result of each fit is a line of docs/results.jsonl, which is committed, so that the fits can be made on several
machines, one after another. A result counts while the code that determines a network, the libraries, and the settings
of the experiment or the script in plain Keras are what they were; the machine and the precision are listed with it.
"""

import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlflow.entities import Run

from benchmarks import processes, records
from benchmarks.runs import Runs, Wanted, accuracy, settings
from fmnist_exp.tracking.names import Metric, Tag

PEERS = processes.PROJECT / "benchmarks" / "peers"
FILE = processes.PROJECT / "docs" / "results.jsonl"
SEEDS = (0, 1, 2)
ONE_SPLIT = 0  # the seed of the split that all runs of one column share
ENSEMBLE, MEMBER = "ensemble", "cnn"

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
class Fit:
    """The result of one fit."""

    system: str
    plain: bool  # whether it was fitted in plain Keras
    seed: int
    split_seed: int
    version: str  # digest of the code, the libraries and the settings
    machine: str
    precision: str
    run_id: str  # empty if it was fitted in plain Keras
    validation: float  # accuracy, percent
    test: float
    parameters: int
    curve: list[float]  # validation accuracy after each epoch, percent

    @property
    def key(self) -> tuple[object, ...]:
        """The values that identify this fit among all others."""
        return self.system, self.plain, self.seed, self.split_seed, self.version


class Results:
    """The results of the current version, in a file.

    Args:
        runs: the runs of this machine.
        file: the lines of docs/results.jsonl.
    """

    def __init__(self, runs: Runs, file: Path) -> None:
        self.runs, self._file = runs, file
        self._fits = {fit.key: fit for fit in (Fit(**fields) for fields in records.read(file))}

    def keep(self, fit: Fit) -> None:
        """Add the result of a fit, unless it is known."""
        if fit.key not in self._fits:
            self._fits[fit.key] = fit
            records.append(self._file, asdict(fit))

    def one_split(self, name: str) -> dict[int, Fit]:
        """Return an experiment's fits on the common split, by seed."""
        return self._found(name, {seed: ONE_SPLIT for seed in SEEDS})

    def own_splits(self, name: str) -> dict[int, Fit]:
        """Return an experiment's fits with a split per seed, by seed. That of seed 0 is also on the common split."""
        return self._found(name, {seed: seed for seed in SEEDS})

    def ensemble(self) -> Fit | None:
        """Return the ensemble of all fits of MEMBER on the common split."""
        return self._fits.get((ENSEMBLE, False, ONE_SPLIT, ONE_SPLIT, self.version(ENSEMBLE)))

    def plain(self, name: str) -> dict[int, Fit]:
        """Return the fits of a system's recipe in plain Keras with a split per seed, by seed."""
        keys = {seed: (name, True, seed, seed, self.plain_version(name)) for seed in SEEDS}
        return {seed: self._fits[key] for seed, key in keys.items() if key in self._fits}

    def version(self, name: str) -> str:
        """Return the digest of what determines the numbers of an experiment, beside the machine and the seeds."""
        fields = settings(wanted(MEMBER if name == ENSEMBLE else name, 0, ONE_SPLIT))
        return self._digest([json.dumps(fields, sort_keys=True, default=str).encode()])

    def plain_version(self, name: str) -> str:
        """Return the digest of what determines the numbers in plain Keras, beside the machine and the seeds."""
        return self._digest([(PEERS / file).read_bytes() for file in (f"{name}_keras.py", "curve.py")])

    def _digest(self, parts: Sequence[bytes]) -> str:
        version = self.runs.version
        content = hashlib.sha256(f"{version.code} {version.conditions[Tag.LIBRARIES]}".encode())
        for part in parts:
            content.update(part)
        return content.hexdigest()[:12]

    def _found(self, name: str, splits: Mapping[int, int]) -> dict[int, Fit]:
        version = self.version(name)
        keys = {seed: (name, False, seed, split, version) for seed, split in splits.items()}
        return {seed: self._fits[key] for seed, key in keys.items() if key in self._fits}


def wanted(name: str, seed: int, split_seed: int) -> Wanted:
    """Return a run of an experiment, which is scored once on the test set, at its end."""
    return Wanted(name, {"seed": seed, "data.split_seed": split_seed}, score_test=True)


def missing(results: Results, names: Sequence[str], seeds: Sequence[int]) -> Iterator[Callable[[], None]]:
    """Yield the fits that are missing, as functions that make them and keep their results."""
    for seed in seeds:
        for name in names:
            if name == ENSEMBLE:
                continue
            for split_seed in sorted({ONE_SPLIT, seed}):
                known = results.one_split(name) if split_seed == ONE_SPLIT else results.own_splits(name)
                if seed not in known:
                    yield partial(fit, results, name, seed, split_seed)
            if name in PLAIN and seed not in results.plain(name):
                yield partial(fit_plain, results, name, seed)
    if ENSEMBLE in names and len(results.one_split(MEMBER)) == len(SEEDS) and not results.ensemble():
        yield partial(fit_ensemble, results)


def fit(results: Results, name: str, seed: int, split_seed: int) -> None:
    """Train an experiment, unless the store has its run. Raises CalledProcessError if it fails."""
    run = results.runs.have(wanted(name, seed, split_seed))
    results.keep(result_of(results, run, name, seed, split_seed))


def fit_ensemble(results: Results) -> None:
    """Make the ensemble, of runs in the store of this machine, which trains the members that it has not."""
    members = [results.runs.have(wanted(MEMBER, seed, ONE_SPLIT)) for seed in SEEDS]
    addresses = ",".join(f"runs:/{member.info.run_id}" for member in members)
    results.runs.command(ENSEMBLE, members=addresses, register="false", score_test="true")
    run = results.runs.finished(ENSEMBLE)[0]
    results.keep(result_of(results, run, ENSEMBLE, ONE_SPLIT, ONE_SPLIT))


def result_of(results: Results, run: Run, name: str, seed: int, split_seed: int) -> Fit:
    """Return the result of a run."""
    return Fit(
        name,
        plain=False,
        seed=seed,
        split_seed=split_seed,
        version=results.version(name),
        machine=results.runs.version.machine(),
        precision=run.data.params.get("training.precision", ""),
        run_id=run.info.run_id,
        validation=accuracy(run, "validation"),
        test=accuracy(run, "test"),
        parameters=int(run.data.metrics[Metric.PARAMETERS]),
        curve=[round(100 * value, 4) for value in results.runs.curve(run, Metric.VAL_ACCURACY)],
    )


def fit_plain(results: Results, name: str, seed: int) -> None:
    """Fit a recipe in plain Keras, or resume its fit. Raises CalledProcessError if it fails."""
    version = results.plain_version(name)
    folder = processes.PROJECT / "bench-systems" / f"{name}-{seed}-{version}"
    arguments = processes.python(f"benchmarks.peers.{name}_keras", folder, "--seed", seed)
    print(*arguments[2:], flush=True)
    subprocess.run(arguments, check=True, cwd=processes.PROJECT)
    results.keep(plain_result_of(results, folder, name, seed))


def plain_result_of(results: Results, folder: Path, name: str, seed: int) -> Fit:
    """Return the result of a finished fit in plain Keras."""
    curve: dict[str, Any] = json.loads((folder / "curve.json").read_text(encoding="utf-8"))
    return Fit(
        name,
        plain=True,
        seed=seed,
        split_seed=seed,
        version=results.plain_version(name),
        machine=results.runs.version.machine(),
        precision="float32",
        run_id="",
        validation=100 * curve["val_accuracy"],
        test=100 * curve["test_accuracy"],
        parameters=curve["parameters"],
        curve=[round(100 * epoch["val_accuracy"], 4) for epoch in curve["epochs"]],
    )


def incomplete(results: Results) -> list[str]:
    """Return descriptions of the results that are missing."""
    lines = []
    for name in (*PUBLISHED, *OURS):
        kinds: dict[str, Mapping[int, object]] = {"on one split": results.one_split(name)}
        kinds["with a split per seed"] = results.own_splits(name)
        kinds |= {"in plain Keras": results.plain(name)} if name in PLAIN else {}
        absent = {what: [str(seed) for seed in SEEDS if seed not in found] for what, found in kinds.items()}
        if all(len(seeds) == len(SEEDS) for seeds in absent.values()):
            lines.append(f"all of `{name}`")
        else:
            lines += [f"`{name}` {what}, seed {', '.join(seeds)}" for what, seeds in absent.items() if seeds]
    return lines if results.ensemble() else [*lines, f"`{ENSEMBLE}`"]
