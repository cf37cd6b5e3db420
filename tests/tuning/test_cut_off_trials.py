"""Trials that a driver left when it was killed or its time was over are closed, and the next session continues them."""

from typing import Any

import optuna
import pytest
from support.scripts import DIED, Interrupted, Late, Script, Slow, Stage, away, end, run_of, start

from fmnist_exp.tracking import resumption, store
from fmnist_exp.tuning import driver, recovery
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.workers.messages import Begin, Envelope, EpochEnd, Finished, Started, TrialResult, Verdict

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


def test_epochs_that_an_earlier_driver_let_pass_are_not_judged_again(stage):
    """Other trials may have become better meanwhile, and the run has these epochs."""

    def epochs(number: int, *values: float) -> list[Envelope]:
        return [Envelope(number, "a", EpochEnd(epoch, value), 2) for epoch, value in enumerate(values, 1)]

    stage.study.pruner = optuna.pruners.ThresholdPruner(lower=0.9)
    with pytest.raises(KeyboardInterrupt):
        stage.drive(Interrupted(start("a"), *epochs(0, 0.95, 0.95)), 60)
    recovery.finalise(stage.study, stage.parent, "its driver was killed")
    stopped = Envelope(1, "a", Finished(TrialResult(True, 0.5, parameters=1)))
    script = Script(Envelope(1, "a", Started("one", "tcp://one"), 1), *epochs(1, 0.5, 0.5, 0.5), stopped)
    stage.drive(script, 60)
    assert script.answers[1:4] == [Verdict.CONTINUE, Verdict.CONTINUE, Verdict.STOP]
    assert stage.study.trials[1].state.name == "PRUNED"


@pytest.mark.parametrize("killed", ["worker", "driver"])
def test_a_trial_that_was_stopped_is_stopped_at_the_same_epoch_again(stage, killed):
    """Its run may have the results of this end; a soak found a trial with those of two ends."""

    def epochs(number: int, execution: str, first: int = 1) -> list[Envelope]:
        accuracies = list(enumerate((0.95, 0.5, 0.95, 0.95), 1))[first - 1 :]
        return [Envelope(number, execution, EpochEnd(epoch, value), 2) for epoch, value in accuracies]

    stage.study.pruner = optuna.pruners.ThresholdPruner(lower=0.9)
    number = 1 if killed == "driver" else 0
    again = [Envelope(number, "b", Started("two", "tcp://two"), 1), *epochs(number, "b")]
    again += [Envelope(number, "b", Finished(TrialResult(True, 0.95, parameters=1)))]
    begun = [start("a"), *epochs(0, "a")[:2]]
    if killed == "driver":
        with pytest.raises(KeyboardInterrupt):
            stage.drive(Interrupted(*begun), 60)
        recovery.finalise(stage.study, stage.parent, "its driver was killed")
        script = Script(*again)
    else:
        script = Script(*begun, DIED, *again)
    stage.drive(script, 60)
    verdicts = [answer for answer in script.answers if isinstance(answer, Verdict)]
    assert verdicts[-4:-1] == [Verdict.CONTINUE, Verdict.STOP, Verdict.STOP]
    assert stage.study.trials[number].state.name == "PRUNED"


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
