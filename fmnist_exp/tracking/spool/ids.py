"""Local ids, which runs, logged models and versions have until the store has given them one of its own.

The store keeps the local id as the tag `fmnist.spool_id`, so that every machine can find what it stands for.
"""

import re
import uuid
from collections.abc import Collection, Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelStatus, ViewType

from fmnist_exp.tracking.names import Tag

LOCAL = re.compile(r"\blocal-[0-9a-f]{32}\b")
PAGE = 1000  # experiments per request
MODELS_PAGE = 50  # experiments per search for logged models

_known: dict[tuple[str, str], str] = {}  # address of the store, local id → id in the store


class NotSentError(LookupError):
    """The store does not have what a local id stands for."""

    def __init__(self, local: str) -> None:
        super().__init__(f"the store does not have {local} yet")
        self.local = local


def new() -> str:
    """Return a local id that nothing else has."""
    return f"local-{uuid.uuid4().hex}"


def is_local(text: str) -> bool:
    """Return True if an id is a local one."""
    return LOCAL.fullmatch(text) is not None


def remember(client: MlflowClient, local: str, found: str) -> None:
    """Let `resolve` know the store's id of a local one without asking the store."""
    _known[client.tracking_uri, local] = found


def resolve(client: MlflowClient, found: str) -> str | None:
    """Return the store's id of a run or logged model with a local id, or None if the store does not have it (whole).

    Any other id is returned as it is, without asking the store.
    """
    if not is_local(found):
        return found
    if (client.tracking_uri, found) not in _known and (stored := find_run(client, found) or _find_model(client, found)):
        remember(client, found, stored)
    return _known.get((client.tracking_uri, found))


def resolve_all(client: MlflowClient, value: Any, lost: Collection[str] = ()) -> Any:
    """Return the body of a record with the store's ids in place of local ones.

    An id among the `lost` ones, which the store will never have, becomes an empty text. In the middle of a text, an id
    that the store does not have stays. Raises NotSentError for any other id that the store does not have.
    """
    if isinstance(value, str):
        if is_local(value):
            return "" if value in lost else _resolved(client, value)
        return LOCAL.sub(lambda local: resolve(client, local[0]) or local[0], value) if "local-" in value else value
    if isinstance(value, Mapping):
        return {key: part if key == "id" else resolve_all(client, part, lost) for key, part in value.items()}
    return [resolve_all(client, part, lost) for part in value] if isinstance(value, list | tuple) else value


def find_run(client: MlflowClient, local: str) -> str | None:
    """Return the id of the run that has the local id as its tag, even if it is deleted, or None."""
    return next(iter(find_runs(client, _experiments(client), local)), None)


def find_runs(client: MlflowClient, experiments: list[str], local: str, active: bool = False) -> list[str]:
    """Return the ids of all runs in these experiments that have the local id as their tag, always in the same order.

    There are several if a request was carried out twice: those that nobody has written to come later, and those that
    were deleted come last. With `active`, the latter do not count.
    """
    if not experiments:
        return []
    view = ViewType.ACTIVE_ONLY if active else ViewType.ALL
    found = client.search_runs(experiments, f"tags.`{Tag.SPOOL_ID}` = '{local}'", view)
    found.sort(key=lambda run: (run.info.lifecycle_stage == "deleted", not run.data.metrics, run.info.run_id))
    return [run.info.run_id for run in found]


def _find_model(client: MlflowClient, local: str) -> str | None:
    experiments = _experiments(client)
    for start in range(0, len(experiments), MODELS_PAGE):
        found = find_models(client, experiments[start : start + MODELS_PAGE], local)
        for model in found:
            if model.status == LoggedModelStatus.READY:  # one that is not may be the twin of a request, and be deleted
                return str(model.model_id)
    return None


def find_models(client: MlflowClient, experiments: list[str], local: str) -> list[LoggedModel]:
    """Return the logged models in these experiments that have the local id as their tag, whole or not."""
    return list(client.search_logged_models(experiments, filter_string=f"tags.`{Tag.SPOOL_ID}` = '{local}'"))


def _experiments(client: MlflowClient) -> list[str]:
    found, token = [], None
    while True:
        page = client.search_experiments(ViewType.ACTIVE_ONLY, PAGE, page_token=token)
        found += [str(experiment.experiment_id) for experiment in page]
        if not (token := page.token):
            return found


def _resolved(client: MlflowClient, local: str) -> str:
    if stored := resolve(client, local):
        return stored
    raise NotSentError(local)
