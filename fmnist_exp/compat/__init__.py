"""The private APIs of libraries that the package uses, each behind one function.

A private API may change with any release. Each function here raises MissingAPIError if its API is gone, and has a test
in tests/test_compat.py, so that an upgrade that breaks one of them fails there first. The libraries are found by name
when a function is called, since every folder may import this module.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import operator
import random
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from fmnist_exp.compat.finding import MissingAPIError as MissingAPIError
from fmnist_exp.compat.finding import attribute, find

if TYPE_CHECKING:
    import keras
    import sqlalchemy
    from distributed import Client
    from mlflow.models import ModelSignature
    from optuna.storages import BaseStorage, RDBStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

    States = Container[TrialState] | None


def seed_keras(seed: int) -> None:
    """Let Keras draw the seeds of weights and dropout from a generator of its own, instead of Python's global one."""
    find("keras", "keras.src.random.seed_generator", "python_random")
    importlib.import_module("keras.src.random.seed_generator").python_random = random.Random(seed)  # type: ignore


def keras_nodes(model: keras.Model) -> Mapping[int, Sequence[Any]]:
    """Return the nodes of a model's graph by depth. A node is one call of a layer; the input has the highest depth."""
    network = getattr(model, "_functional", model)  # of a Sequential model
    return cast("Mapping[int, Sequence[Any]]", attribute("keras", network, "_nodes_by_depth"))


@contextmanager
def without_values() -> Iterator[None]:
    """Let Keras build networks whose weights have shapes, and no values. They can only be looked at."""
    module = importlib.import_module("keras.src.backend.common.global_state")
    forget = attribute("keras", module, "set_global_attribute")
    try:
        with importlib.import_module("keras").StatelessScope(initialize_variables=False):
            yield
    finally:
        forget("uninitialized_variables", [])  # or the end of Keras' next scope would give them values


def tensorflow_gradients() -> dict[str, object]:
    """Return TensorFlow's registry of gradients, by name; entries can be deleted from it."""
    found: dict[str, object] = find("tensorflow", "tensorflow.python.framework.ops", "gradient_registry._registry")
    return found


def accept_any_input(signature: ModelSignature) -> None:
    """Switch off MLflow's check of the input of a model with this signature."""
    attribute("mlflow", signature, "_is_signature_from_type_hint")
    signature._is_signature_from_type_hint = True


def artifact_repository(location: str, tracking_uri: str) -> Any:
    """Return MLflow's ArtifactRepository for an address, which can list and delete artifacts.

    Raises PermissionError for an address on another server than that of the tracking URI, to which MLflow would send
    the credentials of the tracking server.
    """
    there, here = urlsplit(location), urlsplit(tracking_uri)
    over_http = there.scheme in ("http", "https", "mlflow-artifacts") and bool(there.netloc)
    if over_http and (there.hostname, there.port or here.port) != (here.hostname, here.port):
        raise PermissionError(f"its files lie on {there.hostname}, which is not the tracking server")
    module = "mlflow.store.artifact.artifact_repository_registry"
    found = find("mlflow", module, "get_artifact_repository")(location, tracking_uri=tracking_uri)
    for method in ("list_artifacts", "download_artifacts", "delete_artifacts"):
        attribute("mlflow", found, method)
    return found


def mlflow_request(uri: str, endpoint: str, body: Mapping[str, Any], seconds: float) -> int:
    """Send a request to a tracking server once, with MLflow's own credentials and TLS settings; return the status.

    Raises MlflowException if no answer comes within `seconds`; its context is the error of `requests`.
    """
    credentials = find("mlflow", "mlflow.utils.credentials", "get_default_host_creds")(uri)
    request = find("mlflow", "mlflow.utils.rest_utils", "http_request")
    options = {"json": body, "timeout": seconds, "max_retries": 0, "raise_on_status": False}
    return int(request(credentials, endpoint, "POST", **options).status_code)


@contextmanager
def impatient(connect: float, read: float) -> Iterator[None]:
    """Let MLflow send each request of this thread once, and wait these seconds for a connection and for an answer.

    Without this, MLflow retries for minutes. Other threads are not affected, whatever the environment says.
    """
    _patch_requests()
    token = _patience.set((connect, read))
    try:
        yield
    finally:
        _patience.reset(token)


@contextmanager
def retrying(seconds: float) -> Iterator[None]:
    """Let MLflow repeat a failed request of this thread for about these seconds at most, whatever its own limit is."""
    _patch_requests()
    token = _retries.set(int(math.log2(seconds / 2 + 2)))  # MLflow pauses 0, 4, 8, 16, … seconds before them
    try:
        yield
    finally:
        _retries.reset(token)


_patience: ContextVar[tuple[float, float] | None] = ContextVar("patience", default=None)
_retries: ContextVar[int | None] = ContextVar("retries", default=None)


@functools.cache
def _patch_requests() -> None:
    module, name = importlib.import_module("mlflow.utils.rest_utils"), "_get_http_response_with_retries"
    send = attribute("mlflow", module, name)
    describe = inspect.signature(send)
    for option in ("max_retries", "raise_on_status"):
        if option not in describe.parameters:
            raise MissingAPIError("mlflow", f"{name}({option}=…)")

    @functools.wraps(send)
    def send_once(*words: Any, **options: Any) -> Any:
        patience, retries = _patience.get(), _retries.get()
        call = describe.bind(*words, **options)
        if patience is None:
            if retries is not None:
                call.arguments["max_retries"] = min(call.arguments["max_retries"], retries)
            return send(*call.args, **call.kwargs)
        call.arguments |= {"max_retries": 0, "raise_on_status": False}
        return send(*call.args, **(call.kwargs | {"timeout": patience}))

    setattr(module, name, send_once)


def local_folder(repository: Any) -> Path | None:
    """Return the folder of an ArtifactRepository that keeps its artifacts on this machine, or None."""
    module = "mlflow.store.artifact.local_artifact_repo"
    local = find("mlflow", module, "LocalArtifactRepository")
    attribute("mlflow", local, "artifact_dir")
    return Path(repository.artifact_dir) if isinstance(repository, local) else None


def create_mlflow_tables(engine: sqlalchemy.Engine) -> None:
    """Create the tables of MLflow's newest schema in an empty database."""
    find("mlflow", "mlflow.store.db.utils", "_initialize_tables")(engine)


def context_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return `tags` and the tags by which MLflow describes this process: user, source and git commit."""
    return cast("dict[str, str]", find("mlflow", "mlflow.tracking.context.registry", "resolve_tags")(dict(tags)))


def select_trials(study: Study, select: Callable[[list[FrozenTrial], States], list[FrozenTrial]]) -> Study:
    """Return a view of the study in which a sampler reads only the trials that `select` returns.

    It gets all trials, which are read once per new trial, and the states that the sampler asks for.
    """
    read = attribute("optuna", study, "_get_trials")

    class Selection:
        def __getattr__(self, name: str) -> Any:
            return getattr(study, name)

        def _get_trials(self, deepcopy: bool, states: States = None, use_cache: bool = False) -> list[FrozenTrial]:
            return select(read(deepcopy=False, use_cache=True), states)

    return Selection()  # type: ignore[return-value]


def study_storage(database: RDBStorage) -> BaseStorage:
    """Return Optuna's cache of a database of studies, which here stays fast with thousands of trials.

    Whenever a trial is asked for, and whenever a sampler or a pruner reads the trials, Optuna's own sorts all trials by
    a function of Python, and looks at each to find those that have not ended.
    """
    cache = find("optuna", "optuna.storages._cached_storage", "_CachedStorage")
    for name in ("get_all_trials", "_read_trials_from_remote_storage", "_add_trials_to_cache"):
        attribute("optuna", cache, name)
    attribute("optuna", find("optuna", "optuna.storages._cached_storage", "_StudyInfo")(), "unfinished_trial_ids")
    ended = {state for state in importlib.import_module("optuna.trial").TrialState if state.is_finished()}

    class FastCache(cache):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__(database)
            self._in_order: dict[int, list[FrozenTrial]] = {}  # of a study, by number: the first one has number 0

        def _add_trials_to_cache(self, study_id: int, trials: list[FrozenTrial]) -> None:
            super()._add_trials_to_cache(study_id, trials)
            known = self._in_order.setdefault(study_id, [])
            for trial in sorted(trials, key=operator.attrgetter("number")):
                known[trial.number : trial.number + 1] = [trial]

        def get_all_trials(self, study_id: int, deepcopy: bool = True, states: States = None) -> list[FrozenTrial]:
            if deepcopy:
                return cast("list[FrozenTrial]", super().get_all_trials(study_id, deepcopy, states))
            self._read_trials_from_remote_storage(study_id)
            with self._lock:
                found = self._in_order.get(study_id, [])[:]
                if states is not None and not any(state in states for state in ended):
                    ids = self._studies[study_id].unfinished_trial_ids
                    found = [
                        found[number] for number in sorted(self._trial_id_to_study_id_and_number[id][1] for id in ids)
                    ]
            return found if states is None else [trial for trial in found if trial.state in states]

    return cast("BaseStorage", FastCache())


def cpu_features() -> Mapping[str, bool]:
    """Return by NumPy's names which instruction sets the processor has, as far as the operating system lets it."""
    found = find("numpy", "numpy._core._multiarray_umath", "__cpu_features__")
    return cast("Mapping[str, bool]", found)


def dask_workers(client: Client) -> dict[str, Mapping[str, Any]]:
    """Ask a Dask scheduler about its workers, and return the current information on each one by its address."""
    try:
        identity = operator.attrgetter("scheduler.identity")(client)
        found: dict[str, Mapping[str, Any]] = client.sync(identity, n_workers=-1)["workers"]
    except (AttributeError, TypeError, KeyError) as error:
        raise MissingAPIError("distributed", f"Client.scheduler.identity(n_workers=-1)['workers'] ({error})") from error
    return found
