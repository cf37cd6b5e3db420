"""Where the time goes between a command's start and its first training step, in one process: prints JSON.

It does what `fmnist-exp train` does, in the same order, and stops after the first call into the compiled graph.
Usage: python benchmarks/train_start.py EXPERIMENT BEGAN   (BEGAN: time.perf_counter() when the process was started)
"""

import json
import os
import sys
import time
from collections.abc import Iterator


def main(name: str, began: float) -> None:
    costs: dict[str, float] = {}
    last = began
    for phase in phases(name):
        now = time.perf_counter()
        costs[phase] = now - last
        last = now
    print(json.dumps(costs), flush=True)


def phases(name: str) -> Iterator[str]:
    """Says what was done, as soon as it is."""
    from fmnist_exp import cli

    assert cli
    yield "Python, and the command line's imports"
    from fmnist_exp.cli.request import load_experiment, start_run

    config = load_experiment(name, [])
    yield "the experiment's file"
    import mlflow

    assert mlflow
    yield "import mlflow"
    from fmnist_exp import connection, data, experiment, models, runtime, tracking, training

    client = connection.connect()
    yield "the tracking store"
    loaded = data.load(config.data, config.seed)
    yield "the images"
    config = experiment.check(client, config, loaded)
    run = start_run(client, "train", config)
    yield "the run"
    runtime.start_keras()
    yield "import keras and tensorflow"
    runtime.prepare(config.seed, config.training.precision)
    tracking.log_start(run, config, loaded)
    yield "experiment, params and datasets into the run"
    model = runtime.accelerate(models.build(config.model))
    yield "building the network"
    run.close()

    class First(training.Listener):
        def on_step(self, epoch: int, step: int, steps: int) -> None:
            raise Arrived(step)

    try:
        training.fit(model, config, loaded, [First()])
    except Arrived as arrived:
        yield f"tracing, and the first {arrived.args[0]} steps"


class Arrived(Exception):  # noqa: N818
    """No error: the fit has come as far as it should."""


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)  # the batches' thread still waits
