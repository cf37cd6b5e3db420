"""MLflow runs: write a run, and reattach, close or discard a run that another process began.

Every call to MLflow names the run, because MLflow's active-run stack is thread-local, and a process that inherits
MLFLOW_RUN_ID would write into its parent's run by mistake.
"""

import importlib.metadata
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from mlflow import MlflowClient, entities
from mlflow.exceptions import MlflowException

from fmnist_exp import compat
from fmnist_exp.backend import interrupts
from fmnist_exp.config.fields import flatten
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.errors import RequestError
from fmnist_exp.tracking import experiments, store
from fmnist_exp.tracking.failures import reason_of
from fmnist_exp.tracking.names import Artifact, Kind, Param, Tag
from fmnist_exp.tracking.redact import without_secrets

Status = Literal["FINISHED", "FAILED", "KILLED"]

LIBRARIES = ("tensorflow", "keras", "numpy")
PARAMS_PER_REQUEST = 100  # MLflow's limit
FORBIDDEN = "PERMISSION_DENIED"  # error code of MLflow


class Run:
    """One MLflow run that is being written. Close it with `close`, or by `with closing(run)`."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client = client
        self.id = run_id
        self.status: Status = "FINISHED"  # the one that `close` gives the run
        found = client.get_run(run_id)
        self.experiment_id = str(found.info.experiment_id)
        self.kind = found.data.tags.get(Tag.KIND, "")
        self.user = found.data.tags.get(Tag.USER, "unknown")
        self.git_commit = found.data.tags.get(Tag.GIT_COMMIT, "")  # empty if unknown
        self._known_params = set(found.data.params)  # `mlflow run` has logged some

    def tag(self, name: Tag) -> str:
        """Return the value of a tag as the store has it, or an empty text."""
        return str(self.client.get_run(self.id).data.tags.get(name, ""))

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags. Users and passwords in addresses are removed from their values."""
        self.client.log_batch(self.id, tags=_tag_entries(tags))

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log params, except those that `mlflow run` has already logged: MLflow forbids changing a param."""
        new = {str(key): value for key, value in params.items() if key not in self._known_params}
        entries = [entities.Param(key, without_secrets(param_text(value))) for key, value in new.items()]
        for start in range(0, len(entries), PARAMS_PER_REQUEST):
            self.client.log_batch(self.id, params=entries[start : start + PARAMS_PER_REQUEST])
        self._known_params |= new.keys()

    def log_metrics(
        self, metrics: Mapping[str, float], step: int = 0, model_id: str | None = None, split: Split | None = None
    ) -> None:
        """Log metrics. If a model and images are given, link the metrics with them."""
        now = int(time.time() * 1000)  # milliseconds
        about = now, step, model_id, *((split.name, split.digest) if split else ())
        entries = [entities.Metric(str(key), float(value), *about) for key, value in metrics.items()]
        self.client.log_batch(self.id, metrics=entries)

    def logged_metrics(self, prefix: str) -> dict[str, float]:
        """Return the latest values of the run's metrics whose names start with `prefix`."""
        metrics = self.client.get_run(self.id).data.metrics
        return {key: value for key, value in metrics.items() if key.startswith(prefix)}

    def log_inputs(self, data: FashionMNIST, contexts: Mapping[str, Split]) -> None:
        """Link splits of the data set with the run, by context: training, validation, gate or test."""
        source = json.dumps({"uri": data.source})
        tensors = json.dumps({"features": "uint8 (-1, 28, 28)", "targets": "uint8 (-1,)"})
        datasets = []
        for context, split in contexts.items():
            profile = json.dumps({"images": len(split.images)})
            dataset = entities.Dataset(split.name, split.digest, "local", source, tensors, profile)
            datasets.append(entities.DatasetInput(dataset, [entities.InputTag("mlflow.data.context", context)]))
        self.client.log_inputs(self.id, datasets)

    def log_input_model(self, model_id: str) -> None:
        """Link the run with a logged model that it evaluates."""
        self.client.log_inputs(self.id, models=[entities.LoggedModelInput(model_id)])

    def log_output_model(self, model_id: str) -> None:
        """Link the run with a logged model that it produced."""
        self.client.log_outputs(self.id, [entities.LoggedModelOutput(model_id, step=0)])

    @contextmanager
    def artifacts(self) -> Iterator[Path]:
        """Return a folder whose content is logged as artifacts of the run when the block ends."""
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            self.client.log_artifacts(self.id, folder)

    def delete_artifact(self, path: str) -> None:
        """Delete an artifact if the store can delete; otherwise leave it."""
        address = self.client.get_run(self.id).info.artifact_uri
        with suppress(Exception):  # each kind of store has errors of its own, and no run may fail because of this
            store.delete_files(self.client, address, [path])

    def mark_killed(self) -> None:
        """Make `close` close the run as KILLED, and say why, since `mlflow run` overwrites the status with FAILED."""
        self.status = "KILLED"
        self.set_tags({Tag.ERROR: "interrupted"})

    def close(self) -> None:
        """End the run with its status."""
        self.client.set_terminated(self.id, self.status)


def start_run(
    client: MlflowClient,
    kind: Kind,
    name: str,
    experiment: str,
    parent: Run | None = None,
    run_id: str | None = None,
    more_tags: Mapping[str, str] | None = None,
) -> Run:
    """Start a run with MLflow's own source and git tags, as a child of `parent` if given, or take over a run.

    Args:
        client: The client of the store.
        kind: What the run is.
        name: The run's name in the MLflow UI.
        experiment: The name of the experiment file, not of an MLflow experiment.
        parent: The run whose child the new run becomes.
        run_id: The run to take over; `mlflow run` makes one before it starts a command.
        more_tags: Tags that the run needs from its first moment, because the process may be killed right after it.

    Raises:
        RequestError: The tracking server does not let its user write there.
    """
    own = {Tag.KIND: kind, Tag.EXPERIMENT: experiment, Tag.NAME: name, **(more_tags or {})}
    if run_id is None:
        tags = compat.context_tags({str(key): value for key, value in own.items()})
        tags |= {str(Tag.PARENT): parent.id} if parent else {}
        tags = {key: without_secrets(value) for key, value in tags.items()}
        experiment_id = parent.experiment_id if parent else experiments.current(client)
        try:
            run_id = client.create_run(experiment_id, tags=tags, run_name=name).info.run_id
        except MlflowException as error:
            if error.error_code != FORBIDDEN:
                raise
            raise RequestError(
                f"the tracking server lets this user only read the experiment with the id {experiment_id}; ask for the"
                " permission EDIT there, or name an experiment of your own in MLFLOW_EXPERIMENT_NAME"
            ) from error
    else:
        client.log_batch(run_id, tags=_tag_entries(own))
    run = Run(client, run_id)
    if parent is None:
        experiments.describe(client, run.experiment_id)
    return run


@contextmanager
def closing(run: Run) -> Iterator[Run]:
    """Close the run when the block ends: KILLED after an interrupt, FAILED with the reason after an error."""
    try:
        yield run
    except KeyboardInterrupt as interrupt:
        interrupts.release(interrupt)
        run.mark_killed()
        raise
    except BaseException as error:
        run.status = "FAILED"
        run.set_tags({Tag.ERROR: reason_of(error)})
        raise
    finally:
        run.close()


def log_start(run: Run, config: ExperimentConfig, data: FashionMNIST) -> None:
    """Log what is known before the first epoch: the experiment, every field, library versions and the data."""
    with run.artifacts() as folder:  # already now, so that a run that is killed can be run again or resumed
        text = config.model_copy(update={"search": None}).to_yaml()
        (folder / Artifact.EXPERIMENT).write_text(text, encoding="utf-8")
    versions = {Param.LIBRARY.format(library=name): importlib.metadata.version(name) for name in LIBRARIES}
    run.log_params({**flatten(config), **versions})
    splits = {"training": data.train, "validation": data.validation, "gate": data.gate}
    run.log_inputs(data, {context: split for context, split in splits.items() if len(split.images)})


def reattach(client: MlflowClient, run_id: str, parent_id: str) -> None:
    """Make a run the child of another run. A run that a user has deleted is left alone."""
    try:
        client.set_tag(run_id, str(Tag.PARENT), parent_id)
    except MlflowException:
        if client.get_run(run_id).info.lifecycle_stage != "deleted":
            raise


def close(
    client: MlflowClient, run_id: str, status: Status, reason: str = "", tags: Mapping[str, str] | None = None
) -> None:
    """End a run with a status and, if given, a reason (the tag `fmnist.error`) and further tags."""
    client.log_batch(run_id, tags=_tag_entries({**(tags or {}), **({Tag.ERROR: reason} if reason else {})}))
    client.set_terminated(run_id, status)


def discard(client: MlflowClient, run_id: str) -> None:
    """Delete a run whose execution was given up, and the models that it logged; close it if the user may not delete."""
    experiment_id = client.get_run(run_id).info.experiment_id
    client.set_terminated(run_id, "KILLED")
    try:
        for model in client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'"):
            client.delete_logged_model(model.model_id)
        client.delete_run(run_id)  # if the execution is still alive, it can no longer write into the run
    except MlflowException as error:
        if error.error_code != FORBIDDEN:
            raise


def param_text(value: object) -> str:
    """Return a param's value as it is logged: in YAML, with lists in brackets; None becomes an empty text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _tag_entries(tags: Mapping[str, object]) -> list[entities.RunTag]:
    return [entities.RunTag(str(key), without_secrets(str(value))) for key, value in tags.items()]
