"""Print, as JSON, the seconds of each phase between the start of a command and its first training step.

The process does what `fmnist-exp train` does, in the same order, and stops after the first call into the graph.
Usage: python -m benchmarks.training.start EXPERIMENT STARTED
(STARTED is the time.perf_counter() of the calling process just before it starts this one.)
"""

import json
import os
import sys
import time
from collections.abc import Iterator


def main(name: str, started: float) -> None:
    costs: dict[str, float] = {}
    last = started
    for phase in phases(name):
        now = time.perf_counter()
        costs[phase] = now - last
        last = now
    print(json.dumps(costs), flush=True)


def phases(name: str) -> Iterator[str]:
    """Yield the name of each phase when it is done."""
    from fmnist_exp import cli

    assert cli
    yield "Python, and the command line's imports"
    from fmnist_exp.cli.options import load_experiment

    config = load_experiment(name, [])
    yield "the experiment's file"
    import mlflow

    assert mlflow
    yield "import mlflow"
    from fmnist_exp import models
    from fmnist_exp.backend import layers, seeds, setup
    from fmnist_exp.data import dataset
    from fmnist_exp.experiment.resolve import resolve
    from fmnist_exp.tracking import run as runs
    from fmnist_exp.tracking import store
    from fmnist_exp.training import fit as fitting
    from fmnist_exp.training.events import FitCallback

    client = store.connect()
    yield "the tracking store"
    loaded = dataset.load(config.data, config.seed)
    yield "the images"
    config = resolve(config, loaded, client).config
    run = runs.start_run(client, "train", config.name, config.name)
    yield "the run"
    setup.start()
    yield "import keras and tensorflow"
    seeds.prepare(config.seed, config.training.precision)
    runs.log_start(run, config, loaded)
    yield "experiment, params and datasets into the run"
    model = layers.accelerate(models.build(config.model))
    yield "building the network"
    run.close()

    class First(FitCallback):
        def on_step(self, epoch: int, step: int, steps: int) -> None:
            raise Arrived(step)

    try:
        fitting.fit(model, config, loaded, [First()])
    except Arrived as arrived:
        yield f"tracing, and the first {arrived.args[0]} steps"


class Arrived(Exception):  # noqa: N818
    """Ends the fit after its first call into the graph; not an error."""


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)  # the thread that makes batches would never end
