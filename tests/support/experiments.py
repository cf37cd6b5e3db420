"""Experiments that several test files run, and the artifacts that every run leaves."""

from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig

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
