"""The images that a run names as its inputs."""

import json

from mlflow.entities import Run


def image_counts(run: Run) -> dict[str, int]:
    """Return the number of a run's images by purpose: training, validation, test; empty for runs without images."""
    datasets = run.inputs.dataset_inputs if run.inputs else []
    profiles = {item.tags[0].value: json.loads(item.dataset.profile or "{}") for item in datasets if item.tags}
    return {purpose: int(profile.get("images", 0)) for purpose, profile in profiles.items()}
