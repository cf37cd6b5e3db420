"""Versions of the registered model: their aliases, their tags, and who was champion before."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.export import checksums
from fmnist_exp.tracking.redact import first_line, without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


NAME = "fashion-mnist"
CHALLENGER, CHAMPION = "challenger", "champion"
LOGGED_MODEL = re.compile(r"\bm-[0-9a-f]{32}\b")  # an id as MLflow makes them, in whatever address
MISSING = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST")


@dataclass(frozen=True)
class Registration:
    """A version, whether it is the champion now, and why."""

    version: str
    champion: bool
    reason: str


def register(client: MlflowClient, model_id: str, run_id: str, tags: Mapping[str, object]) -> ModelVersion:
    """Register a logged model as a version, with the checksums of its files; give it the alias `challenger`.

    A model that is registered already keeps its version.
    """
    version = _version_of(client, model_id) or _create(client, model_id, run_id, tags)
    client.set_registered_model_alias(NAME, CHALLENGER, version.version)
    return version


def logged_model(version: ModelVersion) -> str | None:
    """Id of the logged model behind a version, where it has one: named by it, or part of its source's address."""
    found = LOGGED_MODEL.search(str(version.source))
    return str(version.model_id) if version.model_id else found and found[0]


def files(version: ModelVersion) -> Path:
    """The folder with a version's files, which are those that were registered.

    Raises:
        WorkError: they cannot be had, or one changed since.
    """
    folder = download(str(version.source))
    checksums.verify(folder, version.tags)
    return folder


def download(uri: str) -> Path:
    """The folder with a model's files. Raises WorkError if they cannot be had."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        return Path(download_artifacts(uri))
    except (MlflowException, OSError) as error:
        raise WorkError(f"the files of {uri} cannot be had: {first_line(error)}") from error


def find(client: MlflowClient, reference: str) -> ModelVersion:
    """The version that a number or an alias names. Raises RequestError with those that exist."""
    from mlflow.exceptions import MlflowException

    try:
        if reference.isdigit():
            return client.get_model_version(NAME, reference)
        return client.get_model_version_by_alias(NAME, reference)
    except MlflowException as error:
        if error.error_code not in MISSING:
            raise
        what = f"version {reference}" if reference.isdigit() else f"alias {reference!r}"
        raise RequestError(f"{NAME} has no {what}; {_existing(client)}") from error


def find_uri(client: MlflowClient, uri: str) -> ModelVersion:
    """The version that `models:/fashion-mnist@alias` or `models:/fashion-mnist/number` names. Raises RequestError."""
    for separator in ("@", "/"):
        start = f"models:/{NAME}{separator}"
        if uri.startswith(start) and len(uri) > len(start):
            return find(client, uri.removeprefix(start))
    raise RequestError(f"model {uri!r} must be models:/{NAME}@ALIAS or models:/{NAME}/VERSION; {_existing(client)}")


def version_by_alias(client: MlflowClient, alias: str) -> ModelVersion | None:
    """The version that an alias points to, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(NAME, alias)
    except MlflowException as error:
        if error.error_code in MISSING:
            return None
        raise


def tag(client: MlflowClient, version: ModelVersion, tags: Mapping[str, object], instead_of: str = "") -> None:
    """Write tags on a version; those that start with `instead_of` and are not among them are taken off."""
    known = find(client, str(version.version)).tags if instead_of else {}
    for key in known:
        if key.startswith(instead_of) and key not in tags:
            client.delete_model_version_tag(NAME, version.version, key)
    for key, value in tags.items():
        client.set_model_version_tag(NAME, version.version, key, without_secrets(str(value)))


def describe(client: MlflowClient, version: ModelVersion, text: str) -> None:
    """Write the version's description, as the UI shows it."""
    client.update_model_version(NAME, version.version, description=without_secrets(text))


def aliases(client: MlflowClient) -> dict[str, str]:
    """Alias → version number; empty where nothing is registered."""
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_registered_model(NAME).aliases
    except MlflowException as error:
        if error.error_code in MISSING:
            return {}
        raise
    return {alias: str(version) for alias, version in found.items()}


def _existing(client: MlflowClient) -> str:
    numbers = sorted(int(version.version) for version in client.search_model_versions(f"name = '{NAME}'"))
    if not numbers:
        return "none is registered yet; `fmnist-exp tune` registers one"
    named = [f"{alias} (version {version})" for alias, version in sorted(aliases(client).items())]
    shown = [*(["…"] if len(numbers) > 20 else []), *map(str, numbers[-20:])]
    return f"versions: {', '.join(shown)}; aliases: {', '.join(named) or 'none'}"


def _create(client: MlflowClient, model_id: str, run_id: str, tags: Mapping[str, object]) -> ModelVersion:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(NAME, description="Fashion-MNIST: uint8 images (N, 28, 28) to ten classes.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    texts = {key: without_secrets(str(value)) for key, value in tags.items()}
    texts |= checksums.as_tag(checksums.checksums(download(f"models:/{model_id}")))
    return client.create_model_version(NAME, f"models:/{model_id}", run_id, tags=texts, model_id=model_id)


def _version_of(client: MlflowClient, model_id: str) -> ModelVersion | None:
    versions = client.search_model_versions(f"name = '{NAME}'")
    return next((version for version in versions if logged_model(version) == model_id), None)
