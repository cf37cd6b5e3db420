"""Small searches that several test files run: MLPs of one or two layers on some hundred real images."""

import datetime
import typing

import mlflow
import optuna
from optuna.trial import FrozenTrial, TrialState

from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.search import TuneResult, Watcher, tune

NOON = datetime.datetime(2026, 1, 1, 12)
STORAGE = "sqlite:///studies.db"  # in the store's folder, where the tests work
SPACE = {
    "model.dropout": {"low": 0.0, "high": 0.5},
    "training.learning_rate": {"low": 3e-4, "high": 3e-2, "log": True},
    "model.widths": {"depth": [1, 2], "low": 8, "high": 32, "step": 8},
}


def configure(**changes: typing.Any) -> ExperimentConfig:
    """A small search with changes: training__epochs=3 stands for training.epochs=3."""
    own = {
        "name": "tiny_search",
        "model.family": "mlp",
        "model.widths": [32],
        "training.epochs": 2,
        "training.batch_size": 50,
        "training.learning_rate": 1e-2,
        "training.steps_per_execution": 1,
        "search.space": SPACE,
        "search.n_trials": 3,
        "search.startup_trials": 2,
        "search.pruner": "none",
    }
    own |= {name.replace("__", "."): value for name, value in changes.items()}
    return files.override(ExperimentConfig(), own)


class Searched:
    """A search that ended, as MLflow and Optuna know it."""

    def __init__(self, config: ExperimentConfig, data: FashionMNIST, name: str) -> None:
        self.client = store.connect()
        study = studies.open_study(config, name, STORAGE)
        run = runs.start_run(self.client, "tune", name, config.name)
        with runs.closing(run):
            self.result: TuneResult = tune(config, data, study, run, Watcher())
        self.study = optuna.load_study(study_name=name, storage=STORAGE)
        self.parent = self.client.get_run(run.id)

    def children(self, kind: str = "trial") -> list[mlflow.entities.Run]:
        """The runs below the parent's, in order."""
        query = f"tags.mlflow.parentRunId = '{self.parent.info.run_id}' and tags.`fmnist.kind` = '{kind}'"
        return self.client.search_runs(["0"], query, order_by=["attributes.start_time"])

    def artifacts(self) -> set[str]:
        return {entry.path for entry in self.client.list_artifacts(self.parent.info.run_id, "study")}


def ended(number: int, params: dict, kinds: dict, values: list[float] | None, **more: typing.Any) -> FrozenTrial:
    """A trial as a search leaves it, without the work."""
    given = {"state": TrialState.COMPLETE, "attrs": {}, "curve": {}, "start": NOON, "end": NOON} | more
    attrs = {"val_accuracy": values[0], "model_id": f"m-{number}"} if values else {}
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=given["state"],
        value=None,
        values=values,
        params=params,
        distributions=kinds,
        user_attrs={**attrs, **given["attrs"]},
        system_attrs={},
        intermediate_values=given["curve"],
        datetime_start=given["start"],
        datetime_complete=given["end"],
    )
