"""Runs that another process began: attach them to a parent, close them, discard them."""

from __future__ import annotations

from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from fmnist_exp.tracking.names import Tag
from fmnist_exp.tracking.redact import without_secrets
from fmnist_exp.tracking.run import Status


def reattach(client: MlflowClient, run_id: str, parent_id: str) -> None:
    """Make a run the child of another run. A run that a user has deleted is left alone."""
    try:
        client.set_tag(run_id, str(Tag.PARENT), parent_id)
    except MlflowException:
        if client.get_run(run_id).info.lifecycle_stage != "deleted":
            raise


def close(
    client: MlflowClient, run_id: str, status: Status, reason: str = "", tags: Mapping[Tag, str] | None = None
) -> None:
    """End a run with a status and, if given, a reason (the tag `fmnist.error`) and further tags."""
    for key, value in {**(tags or {}), **({Tag.ERROR: reason} if reason else {})}.items():
        client.set_tag(run_id, str(key), without_secrets(value))
    client.set_terminated(run_id, status)


def discard(client: MlflowClient, run_id: str) -> None:
    """Delete a run whose execution was given up, together with the models that it logged."""
    experiment_id = client.get_run(run_id).info.experiment_id
    for model in client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'"):
        client.delete_logged_model(model.model_id)
    client.set_terminated(run_id, "KILLED")
    client.delete_run(run_id)  # if the execution is still alive, it can no longer write into the run
