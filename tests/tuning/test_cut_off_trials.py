"""Trials that a driver left when it was killed or its time was over are closed, and the next session continues them."""

from typing import Any

import pytest
from optuna.trial import TrialState
from support.scripts import Interrupted, Late, Script, Slow, Stage, away, end, epochs, others, run_of, start

from fmnist_exp.tracking import resumption, store
from fmnist_exp.tuning import driver, recovery
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.workers.messages import Begin, Died, Envelope, EpochEnd, Finished, Started, TrialResult, Verdict

# the driver is killed, or somebody deletes a run


def test_a_trial_whose_run_somebody_deleted_gets_a_new_one_in_the_next_session(stage):
    with pytest.raises(KeyboardInterrupt):
        stage.drive(Interrupted(start("a")), 60)
    recovery.finalise(stage.study, stage.parent, "its driver was killed")
    deleted = run_of(stage).info.run_id
    store.client().delete_run(deleted)
    script = Script(
        Envelope(1, "a", Started("one", "tcp://one"), 1), Envelope(1, "a", Finished(TrialResult(False, 0.5)))
    )
    stage.drive(script, 60)
    begun = script.answers[0]
    assert isinstance(begun, Begin)
    assert not begun.resumed
    assert run_of(stage, 1).info.run_id != deleted
    assert run_of(stage, 1).info.status == "FINISHED"


def test_a_kill_between_record_and_run_loses_no_state(stage, monkeypatch):
    def begin(number: int) -> Script:
        return Interrupted(Envelope(number, "a", Started("one", "tcp://one"), 1))

    def kill(*arguments: Any) -> None:
        raise KeyboardInterrupt

    run_ids = []
    for number in range(3):
        if number == 1:
            monkeypatch.setattr(resumption, "take", kill)  # between the trial's record and the tags of its run
        with pytest.raises(KeyboardInterrupt):
            stage.drive(begin(number), 60)
        recovery.finalise(stage.study, stage.parent, "its driver was killed")
        run_ids += [
            stage.study.trials[number].user_attrs["run_id"],
            stage.study.trials[number + 1].user_attrs["resumes"],
        ]
    assert len(set(run_ids)) == 1
    found = store.client().get_run(run_ids[0])
    assert (found.info.lifecycle_stage, found.info.status) == ("active", "KILLED")


@pytest.fixture
def second(stage) -> int:
    """The number of the trial that comes after that of the experiment's own setting, which is never stopped."""
    stage.study.tell(stage.study.ask(), state=TrialState.PRUNED)
    return 1


def test_epochs_that_an_earlier_driver_let_pass_are_not_judged_again(stage, second):
    """Other trials may have become better meanwhile, and the run has these epochs."""
    others(stage, [0.1], [0.1])
    number = second + 2
    with pytest.raises(KeyboardInterrupt):
        stage.drive(Interrupted(start("a", number=number), *epochs("a", 0.5, 0.5, number=number)), 60, n_trials=5)
    recovery.finalise(stage.study, stage.parent, "its driver was killed")
    others(stage, *[[0.9, 0.9, 0.9]] * 8)
    again = number + 1  # the queued one
    script = Script(
        start("b", number=again),
        *epochs("b", 0.5, 0.5, 0.5, number=again),
        end("b", stopped=True, number=again),
    )
    stage.drive(script, 60, n_trials=12)
    assert script.answers[1:4] == [Verdict.CONTINUE, Verdict.CONTINUE, Verdict.STOP]
    assert stage.study.trials[again].state.name == "PRUNED"


@pytest.mark.parametrize("killed", ["worker", "driver"])
def test_a_trial_that_was_stopped_is_stopped_at_the_same_epoch_again(stage, second, killed):
    """Its run may have the results of this end; a soak found a trial with those of two ends."""
    others(stage, *[[0.9]] * 4)
    number = second + 4
    begun = [start("a", number=number), *epochs("a", 0.5, number=number)]
    later = number + 1 if killed == "driver" else number
    again = [start("b", number=later), *epochs("b", 0.5, number=later), end("b", stopped=True, number=later)]
    if killed == "driver":
        first = Interrupted(*begun)
        with pytest.raises(KeyboardInterrupt):
            stage.drive(first, 60, n_trials=6)
        recovery.finalise(stage.study, stage.parent, "its driver was killed")
        script = Script(*again)
    else:
        first = script = Script(*begun, Envelope(number, "", Died()), *again)
    stage.drive(script, 60, n_trials=6)
    assert first.answers[1] is Verdict.STOP
    assert script.answers[-2] is Verdict.STOP
    assert stage.study.trials[later].state.name == "PRUNED"


def test_a_study_goes_on_after_somebody_deleted_a_run(stage):
    stage.drive(Script(start("a"), end("a")), 60)
    stage.parent.client.delete_run(stage.study.trials[0].user_attrs["run_id"])
    recovery.check(stage.study, stage.parent.client)
    recovery.reattach(stage.study, stage.parent)


# the time is over


def test_a_trial_that_waits_for_a_server_is_cut_off_when_the_time_is_over(stage):
    stage.drive(Slow(stage.clock, start("a"), away("a")), 90)
    assert stage.study.user_attrs["cut_off"] == [0]


def test_what_begins_again_after_the_time_is_cut_off(stage):
    script = Script(start("a"))
    script.messages.append(start("b"))
    late = Late(script, stage.clock)
    stage.drive(late, 60)
    assert late.answers[1] is Verdict.ABANDON
    check_cut(stage, late)


def test_after_the_time_only_what_has_epochs_left_is_stopped(stage):
    epochs = [Envelope(0, "a", EpochEnd(number, 0.5), 2) for number in (3, 4)]
    late = Late(Script(start("a"), *epochs, end("a")), stage.clock)
    stage.drive(late, 60)
    assert late.answers[1:3] == [Verdict.STOP, Verdict.CONTINUE]


def test_a_trial_whose_worker_is_gone_is_not_waited_for_after_the_time(stage):
    script = Late(Script(start("a", "tcp://gone")), stage.clock)
    stage.drive(script, 60)
    check_cut(stage, script)


def test_a_trial_that_hangs_is_not_waited_for_after_the_time(stage, monkeypatch):
    monkeypatch.setattr(driver, "SILENT_SECONDS", 0.5)
    script = Late(Script(start("a")), stage.clock)
    stage.drive(script, 60)
    check_cut(stage, script)


def check_cut(stage: Stage, script: Script) -> None:
    """The trial counts for nothing, its run is closed, and its setting waits for the next session."""
    first, queued = stage.study.get_trials()
    assert stage.study.user_attrs[studies.CUT_OFF] == [0]
    assert (first.state.name, queued.state.name) == ("FAIL", "WAITING")
    assert queued.system_attrs["fixed_params"] == first.params
    assert store.client().get_run(first.user_attrs["run_id"]).info.status == "KILLED"
    assert script.dropped == [0]
