"""Small searches that many tests run, and what is left of one when it has ended."""

import contextlib
import datetime
import typing
from collections.abc import Mapping

import mlflow
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.tracking import store
from fmnist_exp.tuning import search as searching
from fmnist_exp.tuning.callback import SearchCallback, TrialSummary
from fmnist_exp.tuning.result import SearchResult
from fmnist_exp.tuning.search import SearchRequest

NOON = datetime.datetime(2026, 1, 1, 12)
STORAGE = "sqlite:///studies.db"  # in the store's folder, where the tests work
SPACE = {
    "model.dropout": {"low": 0.0, "high": 0.5},
    "training.learning_rate": {"low": 3e-4, "high": 3e-2, "log": True},
    "model.widths": {"depth": [1, 2], "low": 8, "high": 32, "step": 8},
}
STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}  # of a trial's run


def configure(**changes: typing.Any) -> ExperimentConfig:
    """Return a small search over MLPs with changes: training__epochs=3 stands for training.epochs=3."""
    own = {
        "name": "tiny_search",
        "model.family": "mlp",
        "model.widths": [32],
        "training.epochs": 2,
        "training.batch_size": 50,
        "training.learning_rate": 1e-2,
        "training.steps_per_execution": 1,
        "training.precision": "float32",
        "search.space": SPACE,
        "search.n_trials": 3,
        "search.startup_trials": 2,
        "search.pruner": "none",
    }
    own |= {name.replace("__", "."): value for name, value in changes.items()}
    return files.override(ExperimentConfig(), own)


def pruning(**changes: typing.Any) -> ExperimentConfig:
    """Return a small search of four trials that prunes, with changes as for `configure`."""
    return configure(**{"search__n_trials": 4, "search__pruner": "successive_halving"} | changes)


class FinishedSearch:
    """A search that ended, as its result, Optuna and MLflow know it."""

    def __init__(self, study: str, result: SearchResult | None = None, storage: str = STORAGE) -> None:
        self.client = store.connect()
        self.study = optuna.load_study(study_name=study, storage=storage)
        self.trials = self.study.get_trials()
        self.cut = self.study.user_attrs.get("cut_off", [])
        self.counted = [trial for trial in self.trials if trial.number not in self.cut and trial.state.is_finished()]
        self.parent = self.runs("tune")[-1]
        self._result = result

    @property
    def result(self) -> SearchResult:
        assert self._result is not None, "the search ended with an error, or in another process"
        return self._result

    def runs(self, kind: str = "trial") -> list[mlflow.entities.Run]:
        """The runs of the study, in order."""
        query = f"tags.`fmnist.study` = '{self.study.study_name}' and tags.`fmnist.kind` = '{kind}'"
        return self.client.search_runs(["0"], query, order_by=["attributes.start_time"])

    def children(self, kind: str = "trial") -> list[mlflow.entities.Run]:
        """The runs below the parent run, in order."""
        query = f"tags.mlflow.parentRunId = '{self.parent.info.run_id}' and tags.`fmnist.kind` = '{kind}'"
        return self.client.search_runs(["0"], query, order_by=["attributes.start_time"])

    def statuses(self) -> list[tuple[str, str]]:
        return [(run.info.status, run.data.tags["fmnist.trial_state"]) for run in self.children()]

    def artifacts(self) -> set[str]:
        return {entry.path for entry in self.client.list_artifacts(self.parent.info.run_id, "study")}

    def check_nothing_is_open(self) -> None:
        """Every trial has one run, of the same state, and neither is in progress."""
        assert [trial for trial in self.trials if trial.state == TrialState.RUNNING] == []
        runs = {int(run.data.tags["fmnist.trial"]): run for run in self.runs()}
        assert len(runs) == len(self.runs()), "one run per trial"
        newest = {trial.user_attrs.get("run_id"): trial for trial in self.trials}  # others were cut off before
        for trial in self.trials:
            if (
                trial.state.is_finished()
                and "run_id" in trial.user_attrs
                and newest[trial.user_attrs["run_id"]] is trial
            ):
                run = runs.pop(trial.number)
                assert run.info.run_id == trial.user_attrs["run_id"]
                assert run.data.tags["fmnist.trial_state"] == trial.state.name
                assert run.info.status == ("KILLED" if trial.number in self.cut else STATUS[trial.state.name])
        assert not runs, "runs without a trial"
        assert [run for run in self.runs("tune") if run.info.status == "RUNNING"] == []


class Diary(SearchCallback):
    """Keep what a search says about itself and its trials."""

    def __init__(self) -> None:
        self.searches: list[tuple[int, int]] = []
        self.started: list[tuple[int, Mapping[str, typing.Any]]] = []
        self.ended: list[TrialSummary] = []
        self.paused: list[int] = []

    def on_pause(self, number: int, epochs: int) -> None:
        self.paused.append(number)

    def on_search(self, done: int, n_trials: int, deadline: float) -> None:
        self.searches.append((done, n_trials))

    def on_trial(self, number: int, settings: Mapping[str, typing.Any], epochs: int) -> None:
        self.started.append((number, settings))

    def on_trial_end(self, trial: TrialSummary) -> None:
        self.ended.append(trial)


def search(
    config: ExperimentConfig, study: str, error: type[Exception] | None = None, **request: typing.Any
) -> FinishedSearch:
    """Search in this process, unless `request`, fields of a SearchRequest, says more; expect `error`, if given."""
    result = None
    with pytest.raises(error) if error else contextlib.nullcontext():
        result = searching.run(SearchRequest(config=config, study=study, **{"workers": 1, **request}))
    return FinishedSearch(study, result, request.get("storage", STORAGE))


def ended(number: int, params: dict, kinds: dict, values: list[float] | None, **more: typing.Any) -> FrozenTrial:
    """Return a trial as a search leaves it, without the work."""
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
