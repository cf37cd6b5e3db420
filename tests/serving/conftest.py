"""A registered version, and a server that serves it for real."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from support.servers import Running, Store, serving

from fmnist_exp.export import packaging
from fmnist_exp.serving.model import ServedModel


@pytest.fixture(scope="session")
def registered(tmp_path_factory, new_database, small) -> Store:
    """A small network, fitted for a moment, logged and registered as `tune` does it."""
    import mlflow

    from fmnist_exp import models
    from fmnist_exp.backend import seeds
    from fmnist_exp.config.schema import ModelConfig
    from fmnist_exp.registry import versions
    from fmnist_exp.tracking import models as logged_models
    from fmnist_exp.tracking import run as runs
    from fmnist_exp.tracking import store

    folder = tmp_path_factory.mktemp("registered")
    uri = new_database(folder, str(folder / "mlruns"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        seeds.prepare(0, "float32")
        model = models.build(ModelConfig(family="mlp", widths=(32,)))
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(small.train.images, small.train.labels, epochs=20, verbose=0)
        client = store.connect()
        with runs.closing(runs.start_run(client, "train", "small", "small")) as run:
            model_id = logged_models.log(
                run, partial(packaging.save, model=model, examples=small.validation.images[:50]), {}
            )
        version = versions.register(client, model_id, run.id, {"val_accuracy": 0.5})
        client.set_registered_model_alias(versions.NAME, versions.CHAMPION, version.version)
        files = Path(mlflow.artifacts.download_artifacts(f"models:/{model_id}"))
    return Store(folder, uri, files)


@pytest.fixture(scope="session")
def running(registered) -> Iterator[Running]:
    with serving(registered) as found:
        yield found
        assert found.process.poll() is None, "the server died"


@pytest.fixture(scope="session")
def served(registered) -> ServedModel:
    return ServedModel(registered.files, "fashion-mnist version 1")
