"""The MLflow experiment that runs belong to: find or create it, and tell the MLflow UI how to show it."""

import os
from contextlib import suppress

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fmnist_exp.tracking.names import ExperimentTag, Metric

TAGS = {
    ExperimentTag.KIND: "custom_model_development",
    ExperimentTag.PRIMARY_METRIC: Metric.BEST_VAL_ACCURACY,
    ExperimentTag.GREATER_IS_BETTER: "true",
}


def wanted() -> tuple[str, str]:
    """Return the id, or an empty text, and the name of the experiment that MLflow's environment variables name."""
    return os.environ.get("MLFLOW_EXPERIMENT_ID", ""), os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")


def current(client: MlflowClient) -> str:
    """Return the experiment that MLFLOW_EXPERIMENT_ID or MLFLOW_EXPERIMENT_NAME names, after creating it if needed."""
    experiment_id, name = wanted()
    return experiment_id or find(client, name)


def find(client: MlflowClient, name: str) -> str:
    """Return the id of the experiment with this name, after creating it if needed."""
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:
            experiment = client.get_experiment_by_name(name)  # another process may have created it at this moment
            if experiment is None:
                raise
    return str(experiment.experiment_id)


def describe(client: MlflowClient, experiment_id: str) -> None:
    """Tell the MLflow UI how to show the experiment, except where its owner has decided already."""
    known = client.get_experiment(experiment_id).tags
    wanted = {ExperimentTag.KIND} if ExperimentTag.PRIMARY_METRIC in known else TAGS.keys()
    with suppress(MlflowException):  # of another process that sets them at this moment; they serve the UI only
        for tag in wanted - known.keys():
            client.set_experiment_tag(experiment_id, str(tag), str(TAGS[tag]))
