"""The files of logged models, deleted where only the best are kept: runs, figures and the models' entries stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fmnist_exp.errors import WorkError
from fmnist_exp.registry import versions
from fmnist_exp.registry.lineage import REFIT_OF
from fmnist_exp.tracking.redact import first_line

if TYPE_CHECKING:
    from mlflow import MlflowClient

FILES = ("data/model.keras", "data/model.onnx")
TAG = "fmnist.weights"  # of a logged model without them


def delete(client: MlflowClient, model_id: str, why: str) -> None:
    """Delete the weights of a logged model through its artifact store, and say why on its entry.

    What is deleted already is no error. Raises WorkError if the store refuses.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    try:
        logged = client.get_logged_model(model_id)
        store: Any = get_artifact_repository(logged.artifact_location, tracking_uri=client.tracking_uri)
        there = {entry.path for entry in store.list_artifacts("data")}
        for file in sorted(there.intersection(FILES)):
            store.delete_artifacts(file)
        client.set_logged_model_tags(model_id, {TAG: f"deleted: {why}"})
    except MlflowException as error:
        raise WorkError(f"the weights of model {model_id} cannot be deleted: {first_line(error)}") from error
    except Exception as error:  # each artifact store has errors of its own
        raise WorkError(f"the store keeps the weights of model {model_id}: {first_line(error)}") from error


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
