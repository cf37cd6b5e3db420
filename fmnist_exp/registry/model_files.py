"""The weights of logged models: deleted where only the best are kept, and what versions still need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fmnist_exp.registry import versions
from fmnist_exp.tracking import models as logged_models
from fmnist_exp.tracking.names import VersionTag

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILES = ("data/model.keras", "data/model.onnx")


def delete(client: MlflowClient, model_id: str, reason: str) -> None:
    """Delete the weights of a logged model, and write the reason to its tags. Raises WorkError if the store refuses."""
    logged_models.delete_files(client, model_id, FILES, reason)


def needed_by_versions(client: MlflowClient) -> tuple[set[str], set[str]]:
    """Return the ids of the logged models and of the runs that versions of any name need.

    A version needs a run if its source is an address of the run, and if it was refitted from the run's model.
    """
    models: set[str] = set()
    runs: set[str] = set()
    token = None
    while True:
        page = client.search_model_versions(page_token=token)
        for version in page:
            models.update(filter(None, [versions.logged_model(version)]))
            runs.update(filter(None, [version.run_id, version.tags.get(VersionTag.REFIT_OF)]))
        if not (token := page.token):
            return models, runs
