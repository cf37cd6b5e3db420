"""Trials that pause keep the state of their training, go on from it, and leave nothing behind."""

import dataclasses
from typing import Any

import pytest
from support.scripts import DIED, Interrupted, Script, end, epochs, others, pause, run_of, start
from support.searches import Diary, FinishedSearch, pruning, search

from fmnist_exp.config import files
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.export import signing
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store
from fmnist_exp.tracking.names import Artifact
from fmnist_exp.tracking.spool.process import sender
from fmnist_exp.training.callbacks import Recorder
from fmnist_exp.tuning import recovery
from fmnist_exp.tuning import search as searching
from fmnist_exp.tuning.search import SearchRequest
from fmnist_exp.tuning.workers import trial
from fmnist_exp.tuning.workers.messages import Begin, Verdict

# real fits


@pytest.fixture(scope="module")
def trained() -> list[int]:
    """The epochs that were trained, in order; the first one times the steps for the plan."""
    return []


@pytest.fixture(scope="module")
def diary() -> Diary:
    return Diary()


@pytest.fixture(scope="module")
def found(shared_store, small, diary, trained) -> FinishedSearch:
    """A search whose trials have rungs after epochs 1 and 2 of 3."""
    begin = Recorder.on_epoch_begin

    def count(recorder: Recorder, epoch: int, logs: object = None) -> None:
        trained.append(epoch)
        begin(recorder, epoch, logs)  # type: ignore[arg-type]

    config = pruning(search__n_trials=8, search__reduction_factor=2, training__epochs=3)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Recorder, "on_epoch_begin", count)
        return search(config, "paused", data=small, callback=diary)


def test_trials_pause_and_go_on(found, diary):
    states = [ended.state.name for ended in found.trials]
    assert set(states) == {"COMPLETE", "PRUNED"}
    assert diary.paused
    resumed = {int(run.data.tags["fmnist.trial"]) for run in found.children() if "fmnist.resumptions" in run.data.tags}
    assert resumed == set(diary.paused)
    assert any(states[number] == "COMPLETE" for number in resumed)
    found.check_nothing_is_open()


def test_no_epoch_is_trained_twice_or_in_vain(found, trained):
    pruned = [ended for ended in found.trials if ended.state.name == "PRUNED"]
    assert {len(ended.intermediate_values) for ended in pruned} <= {1, 2}
    assert len(trained) - 1 == sum(len(ended.intermediate_values) for ended in found.trials)


def test_a_resumed_trial_is_the_one_that_never_paused(found, diary, small):
    number = next(n for n in diary.paused if found.trials[n].state.name == "COMPLETE")
    run = found.children()[number]
    name = f"runs:/{run.info.run_id}/{Artifact.EXPERIMENT}"
    config = files.parse_logged(store.download_text(name), name)
    with runs.closing(runs.start_run(store.connect(), "trial", "again", "tiny_search")) as again:
        experiment_run.run_experiment(config, small, again, score_test=False)
    found_again = store.client().get_run(again.id)
    assert found_again.data.tags["fmnist.weights_sha256"] == run.data.tags["fmnist.weights_sha256"]
    for metric in ("val_accuracy", "train_loss"):
        once, twice = (found.client.get_metric_history(each, metric) for each in (run.info.run_id, again.id))
        assert [(entry.step, entry.value) for entry in once] == [(entry.step, entry.value) for entry in twice]


def test_each_result_is_logged_once_and_no_state_is_left(found):
    for run in found.children():
        assert len(found.client.get_metric_history(run.info.run_id, "best_val_accuracy")) == 1
        assert len(run.outputs.model_outputs) == 1
        assert found.client.list_artifacts(run.info.run_id, "checkpoint") == []


def test_the_own_setting_is_trained_to_the_end_to_be_compared(found):
    assert found.trials[0].state.name == "COMPLETE"
    assert len(found.trials[0].intermediate_values) == 3
    assert "It is not known" not in found.result.gain


def test_offline_weak_trials_are_stopped_for_good(small, shared_store, monkeypatch, tmp_path):
    """Nobody could read their states before they are sent."""
    monkeypatch.setenv("FMNIST_EXP_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setattr(sender(), "offline", False)  # and so it is again after the test
    seen = Diary()
    config = pruning(search__n_trials=4, search__reduction_factor=2)
    result = searching.run(
        SearchRequest(config=config, study="away", workers=1, data=small, offline=True, callback=seen)
    )
    assert seen.paused == []
    own = next(ended for ended in seen.ended if ended.number == 0)
    assert own.state == "COMPLETE", "the search is compared with it"
    assert result.states["PRUNED"] >= 1


# a driver whose worker is a script; the rungs are after epochs 1 and 3 of 4


def test_a_paused_trial_is_shown_as_such_and_frees_its_worker(stage):
    script = Interrupted(start("a"), *epochs("a", 0.5), pause("a"))
    with pytest.raises(KeyboardInterrupt):
        stage.drive(script, 60, n_trials=2)
    assert script.answers[1] is Verdict.PAUSE
    assert script.started == [0, 1]
    assert script.dropped == [0]
    assert run_of(stage).data.tags["fmnist.trial_state"] == "PAUSED"
    assert run_of(stage).info.status == "RUNNING"


def test_after_a_kill_it_waits_on_and_is_resumed_in_its_run(stage):
    with pytest.raises(KeyboardInterrupt):
        stage.drive(Interrupted(start("a"), *epochs("a", 0.5), pause("a"), start("b", number=1)), 60, n_trials=2)
    recovery.finalise(stage.study, stage.parent, "its driver was killed")
    script = Script(
        start("c", number=3),  # the one that was running
        *epochs("c", 0.1, number=3),
        end("c", stopped=True, number=3),
        start("d", number=2),
        *epochs("d", 0.5, 0.6, 0.7, 0.8, number=2),
        end("d", number=2),
    )
    stage.drive(script, 60, n_trials=2)
    assert script.started == [3, 2]
    kinds = [answer if isinstance(answer, Verdict) else type(answer) for answer in script.answers if answer]
    assert kinds == [Begin, Verdict.STOP, Begin, *[Verdict.CONTINUE] * 4]
    assert [answer.resumed for answer in script.answers if isinstance(answer, Begin)] == [True, True]
    known = stage.study.trials
    assert [ended.state.name for ended in known] == ["FAIL", "FAIL", "COMPLETE", "PRUNED"]
    assert stage.study.user_attrs["cut_off"] == [0, 1]
    assert known[2].intermediate_values == {1: 0.5, 2: 0.6, 3: 0.7, 4: 0.8}
    assert known[2].user_attrs["run_id"] == known[0].user_attrs["run_id"]
    assert run_of(stage, 2).data.tags["fmnist.trial_state"] == "COMPLETE"


def test_when_the_time_is_over_paused_trials_still_get_their_results(stage):
    class ThenLate(Script):
        def work(self, *arguments: Any) -> None:
            super().work(*arguments)
            stage.clock.ahead += 60 if len(self.answers) == 3 else 0

    last = start("b"), *epochs("b", 0.5), end("b", stopped=True)
    script = ThenLate(start("a"), *epochs("a", 0.5), pause("a"), *last)
    stage.drive(script, 60, n_trials=2)
    assert script.answers[-2] is Verdict.STOP
    assert stage.study.trials[0].state.name == "PRUNED"
    assert (run_of(stage).info.status, run_of(stage).data.tags["fmnist.trial_state"]) == ("KILLED", "PRUNED")


def test_what_a_paused_execution_logged_is_not_logged_again(stage):
    """Its records may still wait for a store that is away; a soak found epochs twice."""
    script = Script(start("a"), *epochs("a", 0.5), pause("a"), start("b"), *epochs("b", 0.5, 0.6, 0.7, 0.8), end("b"))
    others(stage, [0.6])
    stage.drive(script, 60, n_trials=2)
    assert [answer.logged for answer in script.answers if isinstance(answer, Begin)] == [0, 1]


def test_a_run_leaves_out_the_epochs_that_another_process_has_written(shared_store):
    with runs.closing(runs.start_run(store.connect(), "trial", "part", "tiny_search")) as part:
        part.epochs = 2
        for step in (1, 2, 3):
            part.log_metrics({"val_accuracy": 0.5, "system/cpu": 1.0}, step=step)
        part.log_metrics({"best_epoch": 3})
    known = {
        name: [entry.step for entry in store.client().get_metric_history(part.id, name)]
        for name in ("val_accuracy", "system/cpu", "best_epoch")
    }
    assert known == {"val_accuracy": [3], "system/cpu": [1, 2, 3], "best_epoch": [0]}


def test_a_trial_that_was_to_go_on_when_the_time_was_over_gets_the_result_of_its_pause(stage):
    class ThenLate(Script):
        def submit(self, task: trial.Task) -> None:
            super().submit(task)
            stage.clock.ahead += 100 if len(self.started) == 4 else 0

    others(stage, [0.1])
    script = ThenLate(
        start("a", number=0),
        *epochs("a", 0.5, number=0),
        pause("a", number=0),
        start("b", number=2),
        *epochs("b", 0.4, number=2),
        end("b", stopped=True, number=2),
        start("c", number=0),
        *epochs("c", 0.5, 0.6, number=0),
        DIED,
        start("d", number=0),
        *epochs("d", 0.5, 0.6, number=0),
        end("d", stopped=True, number=0),
    )
    stage.drive(script, 60, n_trials=3)
    assert script.started == [0, 2, 0, 0]
    assert script.answers[-2] is Verdict.STOP
    assert stage.study.trials[0].state.name == "PRUNED"
    assert "cut_off" not in stage.study.user_attrs


def test_when_its_worker_dies_before_the_state_is_kept_the_trial_gets_to_the_rung_again(stage):
    script = Interrupted(start("a"), *epochs("a", 0.5), DIED, start("b"), *epochs("b", 0.5), pause("b"))
    with pytest.raises(KeyboardInterrupt):
        stage.drive(script, 60, n_trials=2)
    verdicts = [answer for answer in script.answers if isinstance(answer, Verdict)]
    assert verdicts == [Verdict.PAUSE, Verdict.PAUSE]
    assert stage.study.trials[0].user_attrs["paused"] == 1


@pytest.mark.parametrize("reason", ["offline", "untrusted"])
def test_without_states_nobody_pauses(reason, monkeypatch, data, stage):
    config = pruning()
    needs = trial.requirements_of(config, data)
    assert needs.keeps_states
    if reason == "untrusted":
        monkeypatch.setenv(signing.TRUSTED_KEYS, "keys.pem")
    else:
        needs = dataclasses.replace(needs, offline=True)
    assert not needs.keeps_states
