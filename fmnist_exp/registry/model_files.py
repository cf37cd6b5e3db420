"""The files of logged models, deleted where only the best are kept: runs, figures and the models' entries stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fmnist_exp.registry import versions
from fmnist_exp.registry.lineage import REFIT_OF
from fmnist_exp.tracking import models as logged_models

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILES = ("data/model.keras", "data/model.onnx")


def delete(client: MlflowClient, model_id: str, reason: str) -> None:
    """Delete the weights of a logged model, and record the reason. Raises WorkError if the store refuses."""
    logged_models.delete_files(client, model_id, FILES, reason)


def registered(client: MlflowClient) -> tuple[set[str], set[str]]:
    """What versions of any name rest on: logged models, and runs.

    Runs, since a version may name one where its source is a plain address, and since the model of another run speaks
    for a version that was fitted again.
    """
    models: set[str] = set()
    runs: set[str] = set()
    page: Any = client.search_model_versions()
    while True:
        for version in page:
            models.update(filter(None, [versions.logged_model(version)]))
            runs.update(filter(None, [version.run_id, version.tags.get(REFIT_OF)]))
        if not page.token:
            return models, runs
        page = client.search_model_versions(page_token=page.token)
