"""The private APIs of libraries that the package uses, each behind one function.

A private API may change with any release. Each function here raises MissingAPIError if its API is gone, and has a test
in tests/test_compat.py, so that an upgrade that breaks one of them fails there first. The libraries are found by name
when a function is called, since every folder may import this module.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import operator
import platform
import random
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import h11
    import keras
    import sqlalchemy
    from distributed import Client
    from mlflow.models import ModelSignature
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

    States = Container[TrialState] | None
    from uvicorn.protocols.http.h11_impl import H11Protocol


class MissingAPIError(ImportError):
    """An installed library lacks a private API that the package uses."""

    def __init__(self, library: str, name: str) -> None:
        try:
            version = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:  # the standard library
            version = f"of Python {platform.python_version()}"
        super().__init__(
            f"{library} {version} has no {name}, a private API that fmnist_exp uses; install the version that"
            " requirements.txt names, or adapt fmnist_exp/compat.py"
        )


def seed_keras(seed: int) -> None:
    """Let Keras draw the seeds of weights and dropout from a generator of its own, instead of Python's global one."""
    _find("keras", "keras.src.random.seed_generator", "python_random")
    importlib.import_module("keras.src.random.seed_generator").python_random = random.Random(seed)  # type: ignore


def keras_nodes(model: keras.Model) -> Mapping[int, Sequence[Any]]:
    """Return the nodes of a model's graph by depth. A node is one call of a layer; the input has the highest depth."""
    network = getattr(model, "_functional", model)  # of a Sequential model
    return cast("Mapping[int, Sequence[Any]]", _attribute("keras", network, "_nodes_by_depth"))


@contextmanager
def without_values() -> Iterator[None]:
    """Let Keras build networks whose weights have shapes, and no values. They can only be looked at."""
    module = importlib.import_module("keras.src.backend.common.global_state")
    forget = _attribute("keras", module, "set_global_attribute")
    try:
        with importlib.import_module("keras").StatelessScope(initialize_variables=False):
            yield
    finally:
        forget("uninitialized_variables", [])  # or the end of Keras' next scope would give them values


def tensorflow_gradients() -> dict[str, object]:
    """Return TensorFlow's registry of gradients, by name; entries can be deleted from it."""
    found: dict[str, object] = _find("tensorflow", "tensorflow.python.framework.ops", "gradient_registry._registry")
    return found


def accept_any_input(signature: ModelSignature) -> None:
    """Switch off MLflow's check of the input of a model with this signature."""
    _attribute("mlflow", signature, "_is_signature_from_type_hint")
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
    found = _find("mlflow", module, "get_artifact_repository")(location, tracking_uri=tracking_uri)
    for method in ("list_artifacts", "download_artifacts", "delete_artifacts"):
        _attribute("mlflow", found, method)
    return found


def mlflow_request(uri: str, endpoint: str, body: Mapping[str, Any], seconds: float) -> int:
    """Send a request to a tracking server once, with MLflow's own credentials and TLS settings; return the status.

    Raises MlflowException if no answer comes within `seconds`; its context is the error of `requests`.
    """
    credentials = _find("mlflow", "mlflow.utils.credentials", "get_default_host_creds")(uri)
    request = _find("mlflow", "mlflow.utils.rest_utils", "http_request")
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


_patience: ContextVar[tuple[float, float] | None] = ContextVar("patience", default=None)


@functools.cache
def _patch_requests() -> None:
    module, name = importlib.import_module("mlflow.utils.rest_utils"), "_get_http_response_with_retries"
    send = _attribute("mlflow", module, name)
    describe = inspect.signature(send)
    for option in ("max_retries", "raise_on_status"):
        if option not in describe.parameters:
            raise MissingAPIError("mlflow", f"{name}({option}=…)")

    @functools.wraps(send)
    def send_once(*words: Any, **options: Any) -> Any:
        patience = _patience.get()
        if patience is None:
            return send(*words, **options)
        call = describe.bind(*words, **options)
        call.arguments |= {"max_retries": 0, "raise_on_status": False}
        return send(*call.args, **(call.kwargs | {"timeout": patience}))

    setattr(module, name, send_once)


def local_folder(repository: Any) -> Path | None:
    """Return the folder of an ArtifactRepository that keeps its artifacts on this machine, or None."""
    module = "mlflow.store.artifact.local_artifact_repo"
    local = _find("mlflow", module, "LocalArtifactRepository")
    _attribute("mlflow", local, "artifact_dir")
    return Path(repository.artifact_dir) if isinstance(repository, local) else None


def create_mlflow_tables(engine: sqlalchemy.Engine) -> None:
    """Create the tables of MLflow's newest schema in an empty database."""
    _find("mlflow", "mlflow.store.db.utils", "_initialize_tables")(engine)


def context_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return `tags` and the tags by which MLflow describes this process: user, source and git commit."""
    return cast("dict[str, str]", _find("mlflow", "mlflow.tracking.context.registry", "resolve_tags")(dict(tags)))


def select_trials(study: Study, select: Callable[[list[FrozenTrial], States], list[FrozenTrial]]) -> Study:
    """Return a view of the study in which a sampler reads only the trials that `select` returns.

    It gets all trials, which are read once per new trial, and the states that the sampler asks for.
    """
    read = _attribute("optuna", study, "_get_trials")

    class Selection:
        def __getattr__(self, name: str) -> Any:
            return getattr(study, name)

        def _get_trials(self, deepcopy: bool, states: States = None, use_cache: bool = False) -> list[FrozenTrial]:
            return select(read(deepcopy=False, use_cache=True), states)

    return Selection()  # type: ignore[return-value]


def dask_workers(client: Client) -> dict[str, Mapping[str, Any]]:
    """Ask a Dask scheduler about its workers, and return the current information on each one by its address."""
    try:
        identity = operator.attrgetter("scheduler.identity")(client)
        found: dict[str, Mapping[str, Any]] = client.sync(identity, n_workers=-1)["workers"]
    except (AttributeError, TypeError, KeyError) as error:
        raise MissingAPIError("distributed", f"Client.scheduler.identity(n_workers=-1)['workers'] ({error})") from error
    return found


def http_protocol() -> type[H11Protocol]:
    """Return uvicorn's class of HTTP connections, for use as a base class."""
    found: type[H11Protocol] = _find("uvicorn", "uvicorn.protocols.http.h11_impl", "H11Protocol")
    own = ("connection_made", "data_received", "on_response_complete", "connection_lost", "send_400_response")
    for method in own:
        _attribute("uvicorn", found, method)
    return found


def check_heads(connection: h11.Connection, accept: Callable[[bytes], bool]) -> None:
    """Let an HTTP connection refuse each head of a request, and each end of a chunked one, that `accept` refuses."""
    _attribute("h11", connection, "_receive_buffer")
    connection._receive_buffer = _checked_buffer()(accept)


@functools.cache
def _checked_buffer() -> Any:
    buffer = _find("h11", "h11._receivebuffer", "ReceiveBuffer")
    error = importlib.import_module("h11").LocalProtocolError
    for method in ("maybe_extract_lines", "_extract"):
        _attribute("h11", buffer, method)

    class CheckedBuffer(buffer):  # type: ignore[misc, valid-type]
        """h11's buffer, which would split a head into lines and forget how they ended."""

        def __init__(self, accept: Callable[[bytes], bool]) -> None:
            super().__init__()
            self.accept = accept
            self.extracted = b""

        def _extract(self, count: int) -> bytearray:
            found: bytearray = super()._extract(count)
            self.extracted = found  # type: ignore[assignment]
            return found

        def maybe_extract_lines(self) -> list[bytearray] | None:
            lines: list[bytearray] | None = super().maybe_extract_lines()
            if lines is not None and not self.accept(bytes(self.extracted)):
                raise error("the head of the request is not well-formed")
            return lines

    return CheckedBuffer


def _find(library: str, module: str, name: str) -> Any:
    """Return the object with this dotted name in a module."""
    try:
        return operator.attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise MissingAPIError(library, f"{module}.{name}") from error


def _attribute(library: str, owner: object, name: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError as error:
        kind = owner if isinstance(owner, type) else type(owner)
        raise MissingAPIError(library, f"{kind.__name__}.{name}") from error
