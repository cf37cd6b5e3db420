"""What a search of stand-in trials left behind, and who kills its workers."""

import os
import signal
from pathlib import Path

import mlflow
import optuna

from fmnist_exp.tracking import store
from fmnist_exp.tuning.watching import TrialSummary, Watcher

STORAGE = "sqlite:///studies.db"


class Found:
    """A study after its search, as Optuna and MLflow know it."""

    def __init__(self, name: str, storage: str = STORAGE) -> None:
        self.client = store.connect()
        self.study = optuna.load_study(study_name=name, storage=storage)
        self.trials = self.study.get_trials()
        self.cut = self.study.user_attrs.get("cut_off", [])
        self.counted = [trial for trial in self.trials if trial.number not in self.cut and trial.state.is_finished()]

    def runs(self, kind: str = "trial") -> list[mlflow.entities.Run]:
        query = f"tags.`fmnist.study` = '{self.study.study_name}' and tags.`fmnist.kind` = '{kind}'"
        return self.client.search_runs(["0"], query, order_by=["attributes.start_time"])

    def check_nothing_is_open(self) -> None:
        """Every trial has one run, of the same state, and neither is in progress."""
        open_states = optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.WAITING
        assert [trial for trial in self.trials if trial.state == open_states[0]] == []
        status = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
        runs = {int(run.data.tags["fmnist.trial"]): run for run in self.runs()}
        assert len(runs) == len(self.runs()), "one run per trial"
        for trial in self.trials:
            if trial.state not in open_states and "run_id" in trial.user_attrs:
                run = runs.pop(trial.number)
                assert run.info.run_id == trial.user_attrs["run_id"]
                assert run.data.tags["fmnist.trial_state"] == trial.state.name
                assert run.info.status == ("KILLED" if trial.number in self.cut else status[trial.state.name])
        assert not runs, "runs without a trial"
        assert [run for run in self.runs("tune") if run.info.status == "RUNNING"] == []


class Killer(Watcher):
    """SIGKILL to the first worker that has done an epoch; keeps a diary."""

    def __init__(self) -> None:
        self.killed: list[int] = []
        self.again: list[int] = []
        self.together = 0  # trials, before one lost its worker
        self.running: set[int] = set()

    def on_trial(self, number: int, settings: object, epochs: int) -> None:
        self.running.add(number)
        if not self.killed:
            self.together = max(self.together, len(self.running))

    def on_progress(self, number: int, epochs: float) -> None:
        if epochs >= 1 and not self.killed:
            pid = int(next(Path().glob("working-*")).name.removeprefix("working-"))
            self.killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    def on_retry(self, number: int, reason: str) -> None:
        self.again.append(number)

    def on_trial_end(self, trial: TrialSummary) -> None:
        self.running.discard(trial.number)
