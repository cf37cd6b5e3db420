"""Searches in several processes: real Dask workers, a real MLflow store, real kills; only the training is left out."""

import os
import time
from collections import Counter

import mlflow
import optuna
import pytest
from support import standin
from support.searches import STORAGE, FinishedSearch
from support.standin import Killer

from fmnist_exp.errors import RequestError
from fmnist_exp.tuning.callback import SearchCallback


@pytest.fixture(scope="module")
def killer() -> Killer:
    return Killer()


@pytest.fixture(scope="module")
def found(shared_store: str, killer: Killer) -> FinishedSearch:
    """Six trials on two workers, one of which was killed in the midst of a trial."""
    standin.search(standin.configure(6), "two workers", callback=killer, objective=standin.side_by_side)
    return FinishedSearch("two workers")


def test_a_killed_workers_trial_runs_again_and_counts_once(found, killer):
    assert len(killer.killed) == len(killer.retried) == 1
    assert [trial.state.is_finished() for trial in found.trials] == [True] * 6
    assert found.counted == found.trials
    found.check_nothing_is_open()


def test_a_killed_workers_trial_continues_its_run(found, killer):
    everything = found.client.search_runs(["0"], run_view_type=mlflow.entities.ViewType.ALL)
    assert [run for run in everything if run.info.lifecycle_stage == "deleted"] == []
    resumed = {int(run.data.tags["fmnist.trial"]): run.data.tags.get("fmnist.resumptions", 0) for run in found.runs()}
    interruptions = Counter([*killer.retried, *killer.paused])
    assert {number: int(count) for number, count in resumed.items() if count} == interruptions


def test_each_epoch_is_logged_once_and_reported_once(found):
    for trial in found.trials:
        history = found.client.get_metric_history(trial.user_attrs["run_id"], "val_accuracy")
        assert {entry.step: entry.value for entry in history} == pytest.approx(trial.intermediate_values)
        assert len(history) == len(trial.intermediate_values)


def test_two_trials_run_at_once_in_processes_of_their_own(found, killer):
    assert killer.together == 2
    # a killed process is slow to come back: the other one may have taken all that was left
    assert {trial.user_attrs["worker"] for trial in found.trials} <= {"0", "1"}
    pids = {int(run.data.metrics["pid"]) for run in found.runs()} | set(killer.killed)
    assert len(pids) >= 2
    assert os.getpid() not in pids


def test_pruning_works_across_processes(found):
    pruned = [trial for trial in found.trials if trial.state.name == "PRUNED"]
    assert pruned
    for trial in pruned:
        better = [
            other for other in found.trials if other.user_attrs["val_accuracy"] > trial.user_attrs["val_accuracy"]
        ]
        assert better
        assert max(trial.intermediate_values) < 4


def test_a_trial_whose_workers_die_three_times_fails_with_the_reason(shared_store):
    killer = Killer()
    standin.search(standin.configure(1), "deadly", callback=killer, objective=standin.deadly)
    deadly = FinishedSearch("deadly")
    deadly.check_nothing_is_open()
    (trial,), (run,) = deadly.trials, deadly.runs()
    assert killer.retried == [0, 0]
    assert trial.user_attrs["error"] == run.data.tags["fmnist.error"]
    assert trial.user_attrs["error"].startswith("its worker died 3 times")


class Clock(SearchCallback):
    """Remembers when the time is over, and which trials begun before."""

    def __init__(self) -> None:
        self.deadline = 0.0
        self.begun: list[int] = []

    def on_search(self, done: int, n_trials: int, deadline: float) -> None:
        self.deadline = deadline

    def on_trial(self, number: int, settings: object, epochs: int) -> None:
        self.begun.append(number)


@pytest.mark.usefixtures("shared_store")
def test_timeout_holds_within_an_epoch():
    for minutes in (0.25, 0.5, 1.5):  # a busy machine may need longer than the shortest to start the workers
        begin, clock, name = time.monotonic(), Clock(), f"late after {minutes}"
        config = standin.configure(100, training__epochs=1000, search__timeout=minutes)
        standin.search(config, name, callback=clock)
        # an epoch is 0.1 s, the end of the workers on a busy machine more
        assert time.monotonic() < clock.deadline + 10
        assert clock.deadline < begin + minutes * 60 + 45
        late = FinishedSearch(name)
        late.check_nothing_is_open()
        assert set(clock.begun) == {trial.number for trial in late.trials if "run_id" in trial.user_attrs}
        if clock.begun:
            break
    assert clock.begun
    assert {trial.state.name for trial in late.counted} == {"PRUNED"}


def test_a_scheduler_that_does_not_answer(shared_store):
    begin = time.monotonic()
    with pytest.raises(RequestError, match=r"the Dask scheduler tcp://127.0.0.1:1 does not answer"):
        standin.search(standin.configure(), "nobody", scheduler="tcp://127.0.0.1:1")
    assert time.monotonic() - begin < 20
    assert "nobody" not in optuna.get_all_study_names(STORAGE)
