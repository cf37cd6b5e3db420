"""A run that is being written: every method that logs something appends a record to the run's local spool."""

import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from mlflow import MlflowClient

from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.errors import RequestError, WorkError
from fmnist_exp.tracking import experiments, ownership
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tracking.redact import first_line, without_secrets
from fmnist_exp.tracking.spool import ids
from fmnist_exp.tracking.spool.carrier import Kind
from fmnist_exp.tracking.spool.folder import RunHead
from fmnist_exp.tracking.spool.process import sender
from fmnist_exp.tracking.spool.queue import Spool

Status = Literal["FINISHED", "FAILED", "KILLED"]

PARAMS_PER_REQUEST = 100  # MLflow's limit
LOAD = "system/"  # metrics of the machine, whose steps are not epochs
FORBIDDEN = "PERMISSION_DENIED"  # error code of MLflow


class Run:
    """One MLflow run that is being written. Close it with `close`, or by `with closing(run)`.

    Everything that is written becomes a record of the run's spool, which is sent to the store in the background. No
    method waits for a store that does not answer, and none raises an error of the store.

    Attributes:
        client: a client of the store, for reading.
        status: the status that `close` gives the run.
        experiment_id: id of the run's MLflow experiment; empty while the store has not been asked.
        kind: what the run is.
        user: name of the user who started it.
        git_commit: commit of the code that made it; empty if unknown.
    """

    def __init__(self, client: MlflowClient, run: str | RunHead) -> None:
        """Use an existing run. A head asks the store nothing; for an id, the store is asked what it has."""
        self.client = client
        self.status: Status = "FINISHED"
        self._head = run if isinstance(run, RunHead) else ask(client, run)
        self.experiment_id, self.kind = self._head.experiment_id, self._head.kind
        self.user, self.git_commit = self._head.user, self._head.git_commit
        self._known_params = set(self._head.params)  # `mlflow run` has logged some
        self._tags: dict[str, str] = {}  # that this process has set
        self.resumed = False  # True if an earlier process has logged a part of the run
        self.known_steps: Mapping[str, set[int]] | None = {}  # of metrics, by that process; None if nobody answered
        self.epochs = 0  # whose metrics such a process has written, although the store may not have them yet
        self.resumptions = 0
        self._opened: Spool | None = None
        self._last = 0  # number of the last record
        self._complete = True  # the store had everything when this was last asked

    @property
    def id(self) -> str:
        """The id of the run in the store, or a local id as long as the store does not have the run."""
        if ids.is_local(self._head.id):
            self._head = replace(self._head, id=self._spool.id)
        return self._head.id

    @property
    def head(self) -> RunHead:
        """The head that lets another process write to the run without asking the store."""
        return replace(self._head, id=self.id, params=frozenset(self._known_params))

    @property
    def _spool(self) -> Spool:
        if self._opened is None:
            self._opened = sender().open(self.client, self._head)
        return self._opened

    def _append(self, kind: Kind, body: Mapping[str, Any], files: Path | None = None) -> int:
        self._last = self._spool.append(kind, body, files)
        return self._last

    def create(self, name: str, tags: Mapping[str, object]) -> None:
        """Create the run in the store. If the store does not answer, that is done later.

        Raises RequestError if the store lets its user only read, and WorkError if it refuses the run otherwise.
        """
        body = {"experiment_id": self.experiment_id, "experiment_name": experiments.wanted()[1], "name": name}
        self._tags = texts(tags)
        number = self._append("create_run", {**body, "tags": self._tags, "start_time": now()})
        if not self._spool.wait(number) and (refusal := self._spool.refusal(number)):
            raise _explained(refusal, self.experiment_id) from refusal

    def tag(self, name: Tag) -> str:
        """Return the value of a tag that this process has set, or otherwise as the store has it; or an empty text."""
        if name in self._tags:
            return self._tags[name]
        return str(self.client.get_run(self.id).data.tags.get(name, ""))

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags. Users and passwords in addresses are removed from their values."""
        found = texts(tags)
        self._tags |= found
        self._append("batch", {"tags": found})

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log params, except those that `mlflow run` has already logged: MLflow forbids changing a param."""
        new = {str(key): value for key, value in params.items() if key not in self._known_params}
        entries = [(key, without_secrets(param_text(value))) for key, value in new.items()]
        for start in range(0, len(entries), PARAMS_PER_REQUEST):
            self._append("batch", {"params": dict(entries[start : start + PARAMS_PER_REQUEST])})
        self._known_params |= new.keys()

    def log_metrics(
        self, metrics: Mapping[str, float], step: int = 0, model_id: str | None = None, split: Split | None = None
    ) -> None:
        """Log metrics that the run does not have yet. If a model and images are given, link the metrics with them."""
        known = self.known_steps or {}
        again = {"again": True} if self.known_steps is None or (self.resumed and not step) else {}
        new = {key: metrics[key] for key in metrics if not step or step not in known.get(str(key), ())}
        if 0 < step <= self.epochs:
            new = {key: value for key, value in new.items() if key.startswith(LOAD)}
        about = now(), step, model_id, *((split.name, split.digest) if split else (None, None))
        if new:
            entries = [[str(key), float(value), *about] for key, value in new.items()]
            self._append("batch", {"metrics": entries, **again})

    def logged_metrics(self, prefix: str) -> dict[str, float]:
        """Return the latest values of the run's metrics in the store whose names start with `prefix`."""
        self.delivered()
        metrics = self.client.get_run(self.id).data.metrics
        return {key: value for key, value in metrics.items() if key.startswith(prefix)}

    def log_inputs(self, data: FashionMNIST, contexts: Mapping[str, Split]) -> None:
        """Link splits of the data set with the run, by context: training, validation, gate or test."""
        source = json.dumps({"uri": without_secrets(data.source)})
        tensors = json.dumps({"features": "uint8 (-1, 28, 28)", "targets": "uint8 (-1,)"})
        datasets = []
        for context, split in contexts.items():
            profile = json.dumps({"images": len(split.images)})
            datasets.append([split.name, split.digest, source, tensors, profile, context])
        self._append("inputs", {"datasets": datasets})

    def log_input_model(self, model_id: str) -> None:
        """Link the run with a logged model that it evaluates."""
        self._append("inputs", {"models": [model_id]})

    def log_output_model(self, model_id: str) -> None:
        """Link the run with a logged model that it produced."""
        self._append("outputs", {"models": [[model_id, 0]]})

    def log_model(self, folder: Path, body: Mapping[str, Any], wait: bool = True) -> str:
        """Log the model in a folder, which moves to the spool, and return its id: a local one if nobody answers.

        With `wait` set to False, the id is always a local one.
        """
        local = ids.new()
        number = self._append("model", {**body, "id": local}, folder)
        return self._spool.result(number) if wait and self._spool.wait(number) else local

    @contextmanager
    def artifacts(self) -> Iterator[Path]:
        """Return a folder whose content is logged as artifacts of the run when the block ends."""
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            self._append("artifacts", {"path": ""}, Path(folder))

    def delete_artifacts(self, paths: Iterable[str]) -> None:
        """Delete artifacts that exist, if the store can delete; otherwise leave them."""
        self._append("delete_artifacts", {"paths": sorted(paths)})

    def write_about(self, run_id: str, kind: Kind, body: Mapping[str, Any]) -> None:
        """Write a record about another run, whose process is gone."""
        self._append(kind, {**body, "run_id": run_id})

    def delivered(self) -> bool:
        """Wait until the store has everything that this process wrote to the run; False if it does not answer."""
        if self._opened is not None:
            self._complete = self._opened.wait(self._last) or self._opened.refusal(self._last) is not None
        return self._complete

    def mark_killed(self) -> None:
        """Make `close` close the run as KILLED, and say why, since `mlflow run` overwrites the status with FAILED."""
        self.status = "KILLED"
        self.set_tags({Tag.ERROR: "interrupted"})

    def reopen(self) -> None:
        """Say that the run is in progress again, and no longer how it ended."""
        self._append("status", {"status": "RUNNING", "resumptions": self.resumptions})

    def close(self) -> None:
        """End the run with its status, unless another process has resumed it, and wait for the store if it answers."""
        if ownership.release(self):
            self._append("status", {"status": self.status, "end_time": now(), "resumptions": self.resumptions})
        self.release()

    def release(self) -> None:
        """Say that this process writes no more to the run, which stays open; wait as `close` does."""
        if self._opened is not None:
            self.delivered()
            self._head = replace(self._head, id=self._opened.id)
            self._opened.close()
            self._opened, self._last = None, 0


def param_text(value: object) -> str:
    """Return a param's value as it is logged: in YAML, with lists in brackets; None becomes an empty text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)


def texts(tags: Mapping[str, object]) -> dict[str, str]:
    """Return tags as texts without secrets."""
    return {str(key): without_secrets(str(value)) for key, value in tags.items()}


def now() -> int:
    """Return the time in milliseconds, as MLflow has it."""
    return int(time.time() * 1000)


def ask(client: MlflowClient, run_id: str) -> RunHead:
    """Return what the store knows about a run."""
    found = client.get_run(run_id)
    tags = found.data.tags
    about = tags.get(Tag.KIND, ""), tags.get(Tag.USER, "unknown"), tags.get(Tag.GIT_COMMIT, "")
    return RunHead(run_id, str(found.info.experiment_id), *about, frozenset(found.data.params))


def _explained(refusal: Exception, experiment_id: str) -> Exception:
    if getattr(refusal, "error_code", "") != FORBIDDEN:
        return WorkError(f"the tracking store refuses the run: {first_line(refusal)}")
    return RequestError(
        f"the tracking server lets this user only read the experiment with the id {experiment_id}; ask for the"
        " permission EDIT there, or name an experiment of your own in MLFLOW_EXPERIMENT_NAME"
    )
