"""Log a model, load a logged model, and delete its files."""

import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import keras
import mlflow
from mlflow import MlflowClient
from mlflow.models import Model

from fmnist_exp.errors import WorkError
from fmnist_exp.tracking import store
from fmnist_exp.tracking.names import LoggedModelTag
from fmnist_exp.tracking.redact import first_line, without_secrets
from fmnist_exp.tracking.run import Run, param_text


def log(run: Run, write: Callable[[Path, Model], None], params: Mapping[str, object]) -> str:
    """Log a model to a run under the name `model`, with these params, and return the model's id.

    `write` writes the model into a folder that does not exist yet and completes MLflow's description of the model.
    """
    client = run.client
    texts = {key: without_secrets(param_text(value)) for key, value in params.items()}
    logged = client.create_logged_model(run.experiment_id, "model", run.id, params=texts, model_type="keras")
    model_id = str(logged.model_id)
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            location = logged.artifact_location
            write(folder, Model(artifact_path=location, model_uuid=model_id, run_id=run.id, model_id=model_id))
            client.log_model_artifacts(model_id, str(folder))
    except BaseException:
        client.finalize_logged_model(model_id, "FAILED")
        raise
    client.finalize_logged_model(model_id, "READY")
    run.log_output_model(model_id)
    return model_id


def load_keras(location: str | Path) -> keras.Model:
    """Return the Keras model at a URI or in a folder, loaded in safe mode. Raises WorkError if that fails."""
    try:
        return mlflow.keras.load_model(str(location))
    except Exception as error:  # Keras raises errors of any kind for a damaged file
        raise WorkError(f"the Keras model {location} cannot be loaded: {first_line(error)}") from error


def delete_files(client: MlflowClient, model_id: str, paths: Collection[str], reason: str) -> None:
    """Delete files of a logged model, if they exist, and record the reason in its tags. Raises WorkError on failure."""
    try:
        store.delete_files(client, client.get_logged_model(model_id).artifact_location, paths)
        client.set_logged_model_tags(model_id, {str(LoggedModelTag.WEIGHTS): f"deleted: {reason}"})
    except Exception as error:  # each kind of artifact store has errors of its own
        raise WorkError(f"the files of model {model_id} cannot be deleted: {first_line(error)}") from error
