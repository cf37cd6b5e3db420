"""Train runs of several kinds with one and with two threads, reproduce each, and print a table of what was identical.

Each kind trains for two epochs on the real images: 24 steps an epoch, the validation images after each. One process
trains with a number of threads, and another one reproduces its runs; the trial with one thread ran in a worker.
Usage: python -m benchmarks.reproducing [--threads 1 2]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.reporting import bfloat16_unit, processor

TINY: dict[str, Any] = {
    "name": "tiny",
    "training.epochs": 2,
    "training.batch_size": 2000,
    "training.learning_rate": 3e-3,
    "model.dropout": 0.2,
}
CNN = {"model.family": "cnn", "model.widths": [8, 16], "augmentation.shift": 2, "augmentation.horizontal_flip": True}
KINDS: dict[str, dict[str, Any]] = {
    "MLP, float32": {"model.family": "mlp", "model.widths": [64], "training.precision": "float32"},
    "CNN, float32": {**CNN, "training.precision": "float32"},
    "CNN, bfloat16": {**CNN, "training.precision": "bfloat16"},
}
RESUMED = "CNN, float32, interrupted after its first epoch and resumed"
TRIAL = "trial of a search, MLP, float32"


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="numbers of threads, one after another")
    return options


def main() -> None:
    """Train and reproduce with each number of threads, and print the table."""
    print(f"Machine: {processor()}, bfloat16 by {bfloat16_unit()}\n")
    print("| kind of run | threads | result of `reproduce` |\n|---|---:|---|")
    for threads in parser().parse_args().threads:
        with tempfile.TemporaryDirectory() as folder:
            ids: dict[str, str] = child(Path(folder), "make", threads)
            results: dict[str, str] = child(Path(folder), "repeat", *ids.values())
        for kind, run_id in ids.items():
            print(f"| {kind} | {threads} | {results[run_id]} |", flush=True)


def child(folder: Path, *arguments: object) -> Any:
    """Call a function of this module in a process of its own, and return the last line that it prints, from JSON."""
    command = [sys.executable, "-c", "import sys; from benchmarks import reproducing; reproducing.called(sys.argv[1:])"]
    environment = processes.environment(folder)
    done = subprocess.run(
        [*command, *map(str, arguments)], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def called(arguments: list[str]) -> None:
    """Do what the process was started for."""
    name, *rest = arguments
    print(json.dumps(make(int(rest[0])) if name == "make" else repeat(rest)))


def make(threads: int) -> dict[str, str]:
    """Train a run of each kind, and return the ids of the runs."""
    from fmnist_exp.backend import setup

    setup.start(threads)
    from fmnist_exp.config import files
    from fmnist_exp.config.schema import ExperimentConfig
    from fmnist_exp.experiment.train import Resume, TrainRequest, train
    from fmnist_exp.training.events import Checkpoint, FitCallback
    from fmnist_exp.tuning import search

    class Interruption(FitCallback):
        def on_checkpoint(self, checkpoint: Checkpoint) -> None:
            raise KeyboardInterrupt

    def interrupted(name: str, epochs: int, done: int) -> AbstractContextManager[FitCallback]:
        return nullcontext(Interruption())

    configs = {kind: files.override(ExperimentConfig(), TINY | fields) for kind, fields in KINDS.items()}
    ids = {kind: train(TrainRequest(experiment=config)).run_id for kind, config in configs.items()}
    kept = files.override(configs["CNN, float32"], {"training.checkpoint": True})
    cut = train(TrainRequest(experiment=kept, display=interrupted)).run_id
    ids[RESUMED] = train(TrainRequest(experiment=Resume(cut, {}))).run_id
    space = {"search.space": {"model.dropout": {"low": 0.0, "high": 0.5}}, "search.n_trials": 2}
    config = files.override(configs["MLP, float32"], space)
    workers = 2 if threads == 1 else 1  # two workers have one thread each; a single one is this process
    found = search.run(search.SearchRequest(config=config, workers=workers, trials_only=True))
    ids[TRIAL] = found.ranked[0].run_id
    return ids


def repeat(run_ids: list[str]) -> dict[str, str]:
    """Reproduce the runs, and return what came out by the id of the run."""
    from fmnist_exp.experiment.reproduce import reproduce
    from fmnist_exp.training.events import FitCallback

    results = {}
    for run_id in run_ids:
        found = reproduce(run_id, lambda *fit: nullcontext(FitCallback()))
        size = f"largest difference {found.difference:.1e}, in {found.where}" if found.difference else "other weights"
        results[run_id] = "identical" if found.identical else size
    return results


if __name__ == "__main__":
    main()
