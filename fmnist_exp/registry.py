"""Versions of the registered model, and its aliases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fmnist_exp.tracking import without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

NAME = "fashion-mnist"
CHALLENGER, CHAMPION = "challenger", "champion"


@dataclass(frozen=True)
class Registration:
    """A version, and whether it is the champion now."""

    version: str
    champion: bool


def register(client: MlflowClient, model_id: str, run_id: str, tags: Mapping[str, object]) -> Registration:
    """Register a logged model as a version, alias `challenger`; `champion` too if it is the better one.

    A model that is registered already keeps its version. `tags` must hold `val_accuracy`, which decides.
    """
    version = _version_of(client, model_id) or _create(client, model_id, run_id, tags)
    client.set_registered_model_alias(NAME, CHALLENGER, version.version)
    champion = version_by_alias(client, CHAMPION)
    if champion is None or float(tags["val_accuracy"]) > float(champion.tags["val_accuracy"]):  # type: ignore[arg-type]
        client.set_registered_model_alias(NAME, CHAMPION, version.version)
        champion = version
    return Registration(str(version.version), champion.version == version.version)


def version_by_alias(client: MlflowClient, alias: str) -> ModelVersion | None:
    """The version that an alias points to, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(NAME, alias)
    except MlflowException as error:
        if error.error_code in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
            return None
        raise


def _create(client: MlflowClient, model_id: str, run_id: str, tags: Mapping[str, object]) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(NAME, description="Fashion-MNIST: uint8 images (N, 28, 28) to ten classes.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    texts = {key: without_secrets(str(value)) for key, value in tags.items()}
    return client.create_model_version(NAME, f"models:/{model_id}", run_id, tags=texts, model_id=model_id)


def _version_of(client: MlflowClient, model_id: str) -> ModelVersion | None:
    versions = client.search_model_versions(f"name = '{NAME}'")
    return next((version for version in versions if version.source == f"models:/{model_id}"), None)
