"""The only writer to MLflow: runs, metrics, datasets, pictures and models.

Every call names its run. MLflow's active-run stack is thread-local, and a process that inherits MLFLOW_RUN_ID would
write into its parent's run by mistake.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fmnist_exp.config.schema import ExperimentConfig, flatten
from fmnist_exp.tracking.redact import first_line, without_secrets

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import Model

    from fmnist_exp.data.dataset import FashionMNIST, Split


Kind = Literal["baseline", "train", "tune", "trial", "evaluate"]
Status = Literal["FINISHED", "FAILED", "KILLED"]

VERSIONED = ("tensorflow", "keras", "numpy")
KIND_TAG = "mlflow.experimentKind"  # the UI shows its pages for training instead of those for language models
BATCH = {"metrics": 1000, "params": 100, "tags": 100}  # MLflow's limits per request


class Run:
    """One MLflow run that is being written. `close` it, or use `open_run`, which does."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client = client
        self.id = run_id
        self.status: Status = "FINISHED"  # what the run will be closed with
        info = client.get_run(run_id)
        self.experiment_id = info.info.experiment_id
        self.git_commit = info.data.tags.get("mlflow.source.git.commit", "")
        self._known_params = dict(info.data.params)  # `mlflow run` has logged its own

    def tag(self, tags: Mapping[str, object]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        self.client.log_batch(self.id, tags=[RunTag(key, without_secrets(str(value))) for key, value in tags.items()])

    def params(self, params: Mapping[str, object]) -> None:
        """Log params. One that `mlflow run` has logged already stays as it is: MLflow forbids a second spelling."""
        from mlflow.entities import Param

        texts = {key: param_text(value) for key, value in params.items() if key not in self._known_params}
        new = [Param(key, without_secrets(text)) for key, text in texts.items()]
        for start in range(0, len(new), BATCH["params"]):
            self.client.log_batch(self.id, params=new[start : start + BATCH["params"]])
        self._known_params.update({param.key: param.value for param in new})

    def metrics(
        self, metrics: Mapping[str, float], step: int = 0, model_id: str | None = None, split: Split | None = None
    ) -> None:
        """Log metrics, linked with the model and the data that they were measured on, if given."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        name, digest = (split.name, split.digest) if split else (None, None)
        entries = [Metric(key, float(value), now, step, model_id, name, digest) for key, value in metrics.items()]
        self.client.log_batch(self.id, metrics=entries)

    def logged_metrics(self, prefix: str) -> dict[str, float]:
        """The latest values of the run's metrics whose names start with `prefix`."""
        metrics = self.client.get_run(self.id).data.metrics
        return {key: value for key, value in metrics.items() if key.startswith(prefix)}

    def inputs(self, data: FashionMNIST, contexts: Mapping[str, Split]) -> None:
        """Link datasets: context (training, validation, test) to split."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"uri": data.source})
        datasets = []
        for context, split in contexts.items():
            profile = json.dumps({"images": len(split.images)})
            tensors = {"features": "uint8 (-1, 28, 28)", "targets": "uint8 (-1,)"}
            entity = Dataset(split.name, split.digest, "local", source, json.dumps(tensors), profile)
            datasets.append(DatasetInput(entity, [InputTag("mlflow.data.context", context)]))
        self.client.log_inputs(self.id, datasets)

    def reads_model(self, model_id: str) -> None:
        """Link the run with a logged model that it works on."""
        from mlflow.entities import LoggedModelInput

        self.client.log_inputs(self.id, models=[LoggedModelInput(model_id)])

    @contextmanager
    def artifacts(self) -> Iterator[Path]:
        """A folder whose content becomes the run's artifacts, all at once, when the block is left."""
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            self.client.log_artifacts(self.id, folder)

    def delete_artifact(self, path: str) -> None:
        """Delete an artifact, if the store can: what it cannot delete is left."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        address = self.client.get_run(self.id).info.artifact_uri
        store: Any = get_artifact_repository(address, tracking_uri=self.client.tracking_uri)
        with suppress(Exception):  # each store has errors of its own, and no run may fail of this
            store.delete_artifacts(path)

    def model(self, write: Callable[[Path, Model], None], params: Mapping[str, object]) -> str:
        """Log a model as `model` and return its id.

        Args:
            write: writes the model into a folder that does not exist yet, and completes MLflow's description of it.
            params: the parameters that MLflow shows beside the model.
        """
        from mlflow.models import Model

        texts = {key: without_secrets(param_text(value)) for key, value in params.items()}
        logged = self.client.create_logged_model(self.experiment_id, "model", self.id, params=texts, model_type="keras")
        try:
            with tempfile.TemporaryDirectory() as folder:
                metadata = Model(
                    artifact_path=logged.artifact_location,
                    model_uuid=logged.model_id,
                    run_id=self.id,
                    model_id=logged.model_id,
                )
                write(Path(folder) / "model", metadata)
                self.client.log_model_artifacts(logged.model_id, str(Path(folder) / "model"))
        except BaseException:
            self.client.finalize_logged_model(logged.model_id, "FAILED")
            raise
        self.client.finalize_logged_model(logged.model_id, "READY")
        self.link_model(logged.model_id)
        return str(logged.model_id)

    def link_model(self, model_id: str) -> None:
        """Show a logged model as one that came out of this run."""
        from mlflow.entities import LoggedModelOutput

        self.client.log_outputs(self.id, [LoggedModelOutput(model_id, step=0)])

    def kill(self) -> None:
        """Have the run closed as KILLED, and say why: `mlflow run` writes FAILED over the status of its own run."""
        self.status = "KILLED"
        self.tag({"fmnist.error": "interrupted"})

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
    """Start a run, or take over `run_id`, with MLflow's own source and git tags.

    Args:
        client: of the store.
        kind: tag `fmnist.kind`.
        name: of the run, as the UI shows it.
        experiment: name of the experiment, tag `fmnist.experiment`.
        parent: the run becomes its child.
        run_id: a run that exists, as `mlflow run` makes one.
        more_tags: which the run has from its first moment, since a kill may follow.
    """
    from mlflow.tracking.context.registry import resolve_tags

    own = {"fmnist.kind": kind, "fmnist.experiment": experiment, "mlflow.runName": name, **(more_tags or {})}
    tags = resolve_tags(own)
    if run_id is None:
        tags |= {"mlflow.parentRunId": parent.id} if parent else {}
        tags = {key: without_secrets(value) for key, value in tags.items()}
        experiment_id = parent.experiment_id if parent else _experiment_id(client)
        run = Run(client, client.create_run(experiment_id, tags=tags, run_name=name).info.run_id)
    else:
        run = Run(client, run_id)
        run.tag(own)
    if parent is None and KIND_TAG not in client.get_experiment(run.experiment_id).tags:
        client.set_experiment_tag(run.experiment_id, KIND_TAG, "custom_model_development")
    return run


@contextmanager
def closing(run: Run) -> Iterator[Run]:
    """Close the run when the block ends: by its status, KILLED on an interrupt, FAILED with a reason on an error."""
    try:
        yield run
    except KeyboardInterrupt:
        run.kill()
        raise
    except BaseException as error:
        run.status = "FAILED"
        run.tag({"fmnist.error": first_line(error)})
        raise
    finally:
        run.close()


def log_start(run: Run, config: ExperimentConfig, data: FashionMNIST) -> None:
    """Log what is known before the first epoch: the experiment, every field, library versions, the datasets."""
    with run.artifacts() as folder:  # here already, so that a run which is killed can be run again, or go on
        (folder / "experiment.yaml").write_text(config.model_copy(update={"search": None}).to_yaml(), encoding="utf-8")
    versions = {f"version.{name}": importlib.metadata.version(name) for name in VERSIONED}
    run.params({**flatten(config), **versions})
    held_out = {"validation": data.validation} if len(data.validation.images) else {}
    run.inputs(data, {"training": data.train, **held_out})


def _experiment_id(client: MlflowClient) -> str:
    """The MLflow experiment that MLFLOW_EXPERIMENT_ID or _NAME says, made if missing; else MLflow's default."""
    if experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return experiment_id
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")
    experiment = client.get_experiment_by_name(name)
    return str(experiment.experiment_id if experiment else client.create_experiment(name))


def param_text(value: object) -> str:
    """A param's value as it is logged: what YAML would show, lists with brackets, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, tuple) else str(value)
