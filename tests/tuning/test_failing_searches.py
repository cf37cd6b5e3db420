"""Searches that are interrupted or killed are resumed, and trials that fail are recorded until the search gives up."""

import re

import optuna
from support.searches import STORAGE, Diary, pruning, search

from fmnist_exp.errors import WorkError
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store
from fmnist_exp.training import speed
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.callback import SearchCallback
from fmnist_exp.tuning.space import SearchSpace

# the same for every rate: l2 = 1 makes weights explode at a high one
EXPLOSIVE = {"training__optimizer": "sgd", "model__l2": 1.0, "training__epochs": 1}


class Interrupting(SearchCallback):
    """Ctrl-C at the first step."""

    def on_progress(self, number: int, epochs: float) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_search_is_closed_and_goes_on(shared_store, small):
    config = pruning(search__n_trials=1, training__epochs=1)
    cut = search(config, "interrupted", data=small, callback=Interrupting())
    assert cut.result.status == "interrupted"
    assert cut.result.registration is None
    assert cut.parent.info.status == "KILLED"
    assert cut.statuses() == [("KILLED", "FAIL")]
    diary = Diary()
    done = search(config, "interrupted", data=small, callback=diary)
    assert done.result.status == "completed"
    assert diary.searches == [(0, 1)]  # what was cut off does not count
    assert done.statuses() == [("FINISHED", "COMPLETE")]  # the new trial has continued the run
    first, second = done.study.get_trials()
    assert first.params == second.params
    assert done.result.states == {"COMPLETE": 1, "PRUNED": 0, "FAIL": 0}
    assert done.result.registration is not None


def test_what_a_killed_process_left_is_closed_and_its_setting_run_again(shared_store, small):
    config = pruning(search__n_trials=1, training__epochs=1)
    client = store.connect()
    study = studies.open_study(config, "killed", STORAGE)
    parent = runs.start_run(client, "tune", "killed", config.name)
    trial = study.ask()
    SearchSpace(config).suggest(trial)
    trial.set_user_attr("run_id", runs.start_run(client, "trial", "trial 0", config.name, parent).id)

    done = search(config, "killed", data=small)
    first, second = done.study.get_trials()
    assert (first.state.name, second.state.name) == ("FAIL", "COMPLETE")
    assert first.params == second.params
    assert done.statuses() == [("FINISHED", "COMPLETE")]  # the new trial has continued the run


def test_a_failing_trial_is_recorded_and_the_search_goes_on(shared_store, small):
    choices = {"training.learning_rate": {"choices": [0.01, 10.0]}}
    config = pruning(**EXPLOSIVE, search__space=choices, search__n_trials=3)
    study = studies.open_study(config, "failing", STORAGE)
    study.enqueue_trial({"training.learning_rate": "10.0"})
    study.enqueue_trial({"training.learning_rate": "0.01"})
    diary = Diary()
    done = search(config, "failing", data=small, callback=diary)
    assert done.statuses() == [("FINISHED", "COMPLETE"), ("FAILED", "FAIL"), ("FINISHED", "COMPLETE")]
    assert done.parent.info.status == "FINISHED"
    assert done.result.states == {"COMPLETE": 2, "PRUNED": 0, "FAIL": 1}
    reason = done.children()[1].data.tags["fmnist.error"]
    assert reason.startswith("the training loss became ")
    assert [summary.reason for summary in diary.ended] == ["", reason, ""]


def test_five_failures_in_a_row_end_the_search(shared_store, small):
    choices = {"training.learning_rate": {"choices": [9.0, 10.0]}}
    config = pruning(**EXPLOSIVE, training__learning_rate=10, search__space=choices, search__n_trials=9)
    done = search(config, "all failing", WorkError, data=small)
    assert done.statuses() == [("FAILED", "FAIL")] * 5
    assert done.parent.info.status == "FAILED"
    assert done.parent.data.tags["fmnist.error"].startswith("5 trials failed in a row; the last one: the training loss")


def test_no_time_for_a_single_trial(shared_store, small):
    done = search(pruning(search__timeout=1e-6), "no time", WorkError, data=small)
    assert not done.study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    error = done.parent.data.tags["fmnist.error"]
    assert re.match(r"search\.timeout: 1e-06 minutes are too short for a single trial, .*; [\d.]+ suffice$", error)


def test_a_limit_that_a_few_steps_show_to_be_too_short_ends_the_search(shared_store, small, monkeypatch):
    monkeypatch.setattr(speed, "epoch_seconds", lambda config, data: 60.0)
    done = search(pruning(search__timeout=1), "too short", WorkError, data=small)
    assert not done.children()
    assert done.parent.info.status == "FAILED"
    assert "1 minutes are too short for a single trial" in done.parent.data.tags["fmnist.error"]
