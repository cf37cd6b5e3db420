"""Show how a training step spends its time: durations by kind of operation, from TensorFlow's profile of a real fit.

Operations run side by side, so each moment is divided among the operations that run in it; the column then adds up to
the step's time. A moment without an operation counts as TensorFlow's scheduling, as waiting for a batch, or as Python.
Usage: python -m benchmarks.training.profile [EXPERIMENT …] [--calls 4] [--operations 0] [--FIELD VALUE …]
"""

import argparse
import re
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import processes

# The first pattern that matches an operation's name:type decides. Keras names operations by layer; those of gradients
# begin with gradient_tape.
KINDS = [
    ("input: making batches", r"^PyFunc"),
    ("optimizer", r"(^|/)(sgd|adam|adam_w|muon|loss_scale\w*)/"),  # before the rest: Muon multiplies matrices
    ("convolutions, gradient of the weights", r"BackpropFilter"),
    ("convolutions, gradient of the maps", r"BackpropInput"),
    ("convolutions, backward, the rest", r"gradient_tape/.*conv2d"),
    ("convolutions, forward", r"conv2d|:\w*Conv2[dD]"),
    ("dense layers, backward", r"gradient_tape/.*(dense|MatMul)"),
    ("dense layers, forward", r"/dense|MatMul"),
    ("normalisation, backward", r"gradient_tape/.*normalization|FusedBatchNormGrad"),
    ("normalisation, forward", r"normalization|FusedBatchNorm"),
    ("pooling", r"[Pp]ool"),
    ("dropout", r"dropout"),
    ("activation", r"activation|[Rr]elu|[Ss]ilu"),
    ("loss and metrics", r"[Cc]ross[Ee]ntropy|ArgMax|Equal|DivNoNan|AssignAddVariableOp|:Mean|:Sum|:L2Loss|:Log|Clip"),
    ("input: taking batches, scaling pixels", r"Iterator|rescaling|Optional"),
    ("shortcuts, reshapes, copies", r"."),
]
CONTROL = re.compile(r":(While|If|(Stateful)?PartitionedCall|_?Stateless\w*|Switch|Merge|Enter|Exit|NextIteration)$")
OPERATION = re.compile(r"^[^:]+:[A-Za-z_]\w*$")
WAITING, SCHEDULING, PYTHON = "waiting for the next batch", "TensorFlow's scheduling", "Python, between the calls"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", default=["cnn", "mlp"])
    parser.add_argument("--calls", type=int, default=4, help="number of profiled calls of steps_per_execution steps")
    parser.add_argument("--operations", type=int, default=0, help="number of single operations to list")
    return parser


def main() -> None:
    arguments, fields = parser().parse_known_args()
    if len(arguments.experiments) == 1:
        profile(arguments.experiments[0], arguments.calls, arguments.operations, fields)
        return
    options = processes.options({"calls": arguments.calls, "operations": arguments.operations})
    for name in arguments.experiments:  # each in a fresh process
        subprocess.run(processes.python("benchmarks.training.profile", name, *options, *fields), check=True)


def profile(name: str, calls: int, operations: int, fields: list[str]) -> None:
    """Fit three short epochs: the first warms up, the second is timed, the third is timed and profiled."""
    from fmnist_exp import models
    from fmnist_exp.backend import layers, seeds
    from fmnist_exp.cli.options import parse_fields
    from fmnist_exp.config import files
    from fmnist_exp.data import dataset
    from fmnist_exp.experiment import resolve
    from fmnist_exp.training import fit as fitting
    from fmnist_exp.training.events import FitCallback

    config = files.load(name, {"training.epochs": 3, **parse_fields(fields)})
    together, size = config.training.steps_per_execution, config.training.batch_size
    loaded = shortened(dataset.load(config.data, config.seed), (calls + 2) * together * size)
    config, _ = resolve.choose_precision(config, loaded)
    seeds.prepare(config.seed, config.training.precision)
    model = layers.accelerate(models.build(config.model))
    folder = tempfile.mkdtemp()
    import tensorflow as tf

    class Profiling(FitCallback):
        def on_step(self, epoch: int, step: int, steps: int) -> None:
            if epoch > 1 and step == 2 * together:
                if epoch == 3:
                    tf.profiler.experimental.start(folder)
                self.begin = time.perf_counter()
            elif epoch > 1 and step == (2 + calls) * together:
                seconds = time.perf_counter() - self.begin
                if epoch == 2:
                    self.bare = seconds
                    return
                tf.profiler.experimental.stop()
                title = f"{name}, {config.training.precision}, batch {size}, {together} steps a call"
                report(title, read(folder), calls * together, self.bare, seconds, operations)

    fitting.fit(model, config, loaded, [Profiling()])


def shortened(data: Any, images: int) -> Any:
    """Return data with `images` training images, repeated if there are too few, and 1,000 validation images."""
    from fmnist_exp.data.dataset import FashionMNIST, Split

    chosen = np.arange(images) % len(data.train.images)
    train = Split("train", data.train.images[chosen], data.train.labels[chosen])
    validation = Split("validation", data.validation.images[:1000], data.validation.labels[:1000])
    return FashionMNIST(train, validation, validation, data.source)


@dataclass(frozen=True)
class Event:
    """A named interval on a thread, in picoseconds."""

    start: int
    end: int
    name: str


def read(folder: str) -> list[Event]:
    """Return what ran on the CPU: operations, the executor and the iterators."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    events = []
    for plane in space.planes:
        names = {key: metadata.name for key, metadata in plane.event_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                start = line.timestamp_ns * 1000 + event.offset_ps
                events.append(Event(start, start + event.duration_ps, names[event.metadata_id]))
    return events


def divide(events: list[Event]) -> Counter[str]:
    """Return picoseconds by operation (each moment is divided among those that run), else by what was awaited."""
    moments = []
    for event in events:
        if OPERATION.match(event.name) and not CONTROL.search(event.name):
            name, rank = event.name, 0
        elif event.name.startswith("IteratorGetNext"):
            name, rank = WAITING, 1
        elif event.name.startswith("ExecutorState::Process"):
            name, rank = SCHEDULING, 2
        else:
            continue
        moments += [(event.start, 1, rank, name), (event.end, -1, rank, name)]
    running = Counter[str](), Counter[str](), Counter[str]()
    shares, before = Counter[str](), 0
    for now, change, rank, name in sorted(moments):
        active = next((names for names in running if names), None)
        for other, count in (active or {}).items():
            shares[other] += (now - before) * count / active.total()
        running[rank][name] += change
        if not running[rank][name]:
            del running[rank][name]
        before = now
    return shares


def kind(name: str) -> str:
    """Return the kind of an operation, one of KINDS."""
    if name in (WAITING, SCHEDULING):
        return name
    return next(kind for kind, pattern in KINDS if re.search(pattern, name))


def report(title: str, events: list[Event], steps: int, bare: float, profiled: float, operations: int) -> None:
    """Print the kinds of operations by their time, then the single operations that take longest."""
    shares = {name: 1e-12 * share for name, share in divide(events).items()}
    kinds = Counter({PYTHON: profiled - sum(shares.values())})
    for name, seconds in shares.items():
        kinds[kind(name)] += seconds
    table = Table(title=title)
    for column in ("", "ms per step", "share"):
        table.add_column(column, justify="right" if column else "left")
    for name, seconds in kinds.most_common():
        table.add_row(name, f"{1000 * seconds / steps:.3f}", f"{seconds / profiled:.1%}")
    table.add_row("a step, profiled", f"{1000 * profiled / steps:.3f}", "100.0%")
    console = Console(width=150)
    console.print(table)
    console.print(f"{steps} steps; without the profiler a step took {1000 * bare / steps:.3f} ms")
    for name, seconds in Counter(shares).most_common(operations):
        short = name.rpartition("PartitionedCall/")[2]
        console.print(f"{1000 * seconds / steps:9.3f} ms  {kind(name)}: {short}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
