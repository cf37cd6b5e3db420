"""Experiments that several test files run, a short fit, and the artifacts that every run leaves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow

from fmnist_exp import models
from fmnist_exp.backend import seeds
from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.training import fit as fitting
from fmnist_exp.training.events import Epoch, FitCallback
from fmnist_exp.training.fit import Fit
from fmnist_exp.training.state import State

# two epochs of a small network: 24 steps with the 600 images of the fixture `small`
TINY = {
    "model.family": "mlp",
    "model.widths": [16],
    "training.epochs": 2,
    "training.batch_size": 50,
    "training.learning_rate": 3e-3,
    "training.precision": "float32",
    "training.steps_per_execution": 1,  # several make a loop, which takes TensorFlow longer to trace than to run
}

# one epoch of a small network with batch normalization, which may compute in bfloat16
NORMALIZED = files.override(
    ExperimentConfig(),
    {
        "name": "normalized",
        "model.family": "mlp",
        "model.widths": [16],
        "model.batch_norm": True,
        "model.dropout": 0.2,
        "training.epochs": 1,
        "training.batch_size": 50,
        "training.steps_per_execution": 1,  # several make a loop, which takes TensorFlow longer to trace than to run
        "augmentation.horizontal_flip": True,
    },
)
ARTIFACTS = {
    "experiment.yaml",
    "curves/accuracy.png",
    "curves/loss.png",
    "evaluation/confusion_matrix.png",
    "evaluation/report.json",
    "evaluation/predictions.png",
    "evaluation/mistakes.png",
    "data/samples.png",
    "data/augmented.png",
    "model/summary.txt",
    "model/diagram.png",
}


def configure(**changes: Any) -> ExperimentConfig:
    """Return TINY with changes; training__epochs=3 changes training.epochs."""
    return files.override(
        ExperimentConfig(), TINY | {name.replace("__", "."): value for name, value in changes.items()}
    )


def fit(
    config: ExperimentConfig, data: FashionMNIST, callbacks: Sequence[FitCallback] = (), start: State | None = None
) -> tuple[Any, Fit]:
    """Fit a new model with the seed of the experiment, from a state if one is given; return the model and the fit."""
    seeds.prepare(config.seed, config.training.precision)
    model = models.build(config.model)
    return model, fitting.fit(model, config, data, callbacks, start)


class Collector(FitCallback):
    """Collect every step and epoch, and stop the fit after epoch `last`."""

    def __init__(self, last: int | None = None) -> None:
        self.steps: list[tuple[int, int, int]] = []
        self.epochs: list[Epoch] = []
        self.last = last

    def on_step(self, epoch: int, step: int, steps: int) -> None:
        self.steps.append((epoch, step, steps))

    def on_epoch(self, epoch: Epoch) -> bool:
        self.epochs.append(epoch)
        return epoch.number == self.last


def checkpoint_of(client: mlflow.MlflowClient, run_id: str, folder: Path = Path()) -> int:
    """The step of the run's one checkpoint; the disk has the files of no other."""
    query = f"source_run_id = '{run_id}' and name = 'checkpoint'"
    (checkpoint,) = client.search_logged_models(["0"], filter_string=query)
    assert str(checkpoint.status) == "READY"
    outputs = client.get_run(run_id).outputs.model_outputs
    steps = {output.model_id: output.step for output in outputs if output.step}
    whole = [model for model in steps if any((folder / "mlruns/0/models" / model).rglob("*.keras"))]
    assert whole == [checkpoint.model_id]
    assert steps[checkpoint.model_id] == max(steps.values())
    return steps[checkpoint.model_id]
