"""The images that a run names as its inputs."""

import json

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from fmnist_exp.tracking import transport


def image_counts(run: Run) -> dict[str, int]:
    """Return the number of a run's images by purpose: training, validation, test; empty for runs without images."""
    datasets = run.inputs.dataset_inputs if run.inputs else []
    profiles = {item.tags[0].value: json.loads(item.dataset.profile or "{}") for item in datasets if item.tags}
    return {purpose: int(profile.get("images", 0)) for purpose, profile in profiles.items()}


def image_count(client: MlflowClient, run_id: str, purpose: str) -> int:
    """Return the number of a run's images for a purpose; 0 if it names none, or if there is no such run."""
    try:
        return image_counts(client.get_run(run_id)).get(purpose, 0) if run_id else 0
    except MlflowException as error:
        if transport.is_missing(error):
            return 0
        raise
