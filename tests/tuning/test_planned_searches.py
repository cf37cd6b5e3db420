"""Searches with a plan, on recorded speeds: what they say and begin, what waits, and which limits they refuse."""

from typing import Any

import pytest
from optuna.trial import TrialState, create_trial
from support.scripts import Interrupted, Script, Slow, end, epochs, pause, start

from fmnist_exp.errors import WorkError
from fmnist_exp.tuning import recovery
from fmnist_exp.tuning.workers.messages import Begin, Verdict


class SlowlyInterrupted(Interrupted, Slow):
    """A script that has a minute between two messages, and is interrupted after the last one."""


STEPS = 150.0  # seconds that the steps of an epoch take; with validation, an epoch takes 180


def test_the_search_says_its_plan_once_and_keeps_to_it(stage):
    lines = [start("a", seconds=STEPS), *epochs("a", 0.5), pause("a")]
    for number in range(1, 5):
        begun = start("a", number=number, seconds=10 * STEPS)  # as the plan is made already, that is ignored
        lines += [begun, *epochs("a", 0.4, number=number), end("a", stopped=True, number=number)]
    script = SlowlyInterrupted(stage.clock, *lines)
    with pytest.raises(KeyboardInterrupt):
        stage.drive(script, 3600, n_trials=100)
    assert stage.notices == [
        "plan for 60.0 minutes at 180.0 s per epoch: 13 settings in 2 rounds, which end after 1 and 4 epochs"
    ]
    assert script.answers[1] is Verdict.PAUSE  # the own setting, which waits like any other
    # the factor is 12 now: with that of the experiment, 3, the first trial would have gone on after the third one
    assert script.started == [0, 1, 2, 3, 4, 5]
    assert script.answers.count(Verdict.STOP) == 4


@pytest.mark.parametrize(
    ("left", "goes_on"),
    # three epochs of 180 s and two more of another, larger trial, from epoch 1 to the rung after epoch 3, are 990 s
    [(980, True), (1010, False)],
)
def test_the_trial_of_the_own_setting_goes_on_while_there_is_time_to_end_it(stage, left, goes_on):
    """A search on two cores could not say what it had gained: the time was over before that trial went on."""

    class Jumping(Interrupted):
        def work(self, *arguments: Any) -> None:
            super().work(*arguments)
            if len(self.answers) == 5:
                stage.clock.ahead += 6000 - left

    lines = [start("a", seconds=STEPS), *epochs("a", 0.5), pause("a")]
    lines += [start("b", number=1), *epochs("b", 0.6, number=1), pause("b", number=1)]
    script = Jumping(*lines, start("c"), *epochs("c", 0.5, 0.4, first=2))
    with pytest.raises(KeyboardInterrupt):
        stage.drive(script, 6000, n_trials=100)
    assert "in 3 rounds, which end after 1, 3 and 4 epochs" in stage.notices[0]
    assert script.started == [0, 1, 0 if goes_on else 2]
    if goes_on:
        assert script.answers[-2:] == [Verdict.CONTINUE] * 2, "it does not pause a second time, after epoch 3"


@pytest.mark.parametrize(
    ("limit", "rungs", "goes_on"),
    [(5000, "1, 3 and 4", False), (36_000, "2 and 4", True)],  # at once, where its rung is none any more
)
def test_a_trial_that_paused_at_a_rung_of_the_plan_waits_on_after_a_kill(stage, limit, rungs, goes_on):
    """The rungs of the experiment are after epochs 2 and 4; the first plan has no time for that."""
    lines = [start("a", seconds=STEPS), *epochs("a", 0.5, 0.6, 0.7, 0.8), end("a")]
    lines += [start("b", number=1), *epochs("b", 0.4, number=1), pause("b", number=1)]
    with pytest.raises(KeyboardInterrupt):
        stage.drive(SlowlyInterrupted(stage.clock, *lines), 5000, n_trials=100, search__min_epochs=2)
    assert stage.notices[0].endswith("in 3 rounds, which end after 1, 3 and 4 epochs")
    recovery.finalise(stage.study, stage.parent, "its driver was killed")
    lines = [start("c", number=4, seconds=STEPS), *epochs("c", 0.3, 0.3, number=4), pause("c", number=4)]
    lines += [start("d", number=5), *epochs("d", 0.2, 0.2, number=5), pause("d", number=5)]
    script = Interrupted(*lines)
    with pytest.raises(KeyboardInterrupt):
        stage.drive(script, limit, n_trials=100, search__min_epochs=2)
    assert f"which end after {rungs} epochs" in stage.notices[-1]
    assert (3 in script.started) == goes_on  # the continuation of the trial that paused


def shortened(count: int, first: int = 0) -> list:
    """Return the messages of trials of one epoch."""
    lines = [start("a", number=first, seconds=STEPS), *epochs("a", 0.6, number=first), end("a", number=first)]
    for number in range(first + 1, first + count):
        lines += [start("a", number=number), *epochs("a", 0.4, number=number), end("a", number=number)]
    return lines


def test_where_time_is_short_every_trial_is_a_schedule_of_one_epoch_and_leaves_the_rest_to_the_final_fit(stage):
    script = Slow(stage.clock, *shortened(12))
    stage.drive(script, 3000, n_trials=100, limit=5000, final={"training.epochs": 20})
    assert stage.notices == [
        "plan for 50.0 minutes at 180.0 s per epoch: 12 settings of 1 epoch, then about 8 epochs for the winner"
    ]
    begun = [answer for answer in script.answers if isinstance(answer, Begin)]
    assert [answer.epochs for answer in begun] == [1] * 12  # though there is time for more
    assert {trial.state for trial in stage.study.get_trials(deepcopy=False)} == {TrialState.COMPLETE}


def test_a_resumed_search_goes_on_with_shortened_trials_however_much_time_it_has(stage):
    script: Script = SlowlyInterrupted(stage.clock, *shortened(3))
    with pytest.raises(KeyboardInterrupt):
        stage.drive(script, 600, n_trials=100, limit=1500, final={"training.epochs": 20})
    recovery.finalise(stage.study, stage.parent, "its driver was killed")
    script = Slow(stage.clock, *shortened(2, first=4))
    stage.drive(script, 9000, n_trials=5, limit=20_000, final={"training.epochs": 20})
    begun = [answer for answer in script.answers if isinstance(answer, Begin)]
    assert [answer.epochs for answer in begun] == [1, 1]
    assert "2 settings of 1 epoch" in stage.notices[-1]


def test_where_twelve_would_not_fit_the_final_fit_lends_its_time(stage):
    """Half of them would have come, and the final fit would have had the rest."""
    script = Slow(stage.clock, *shortened(12))
    stage.drive(script, 1200, n_trials=100, limit=3000, final={"training.epochs": 20})
    assert stage.notices == [
        "plan for 44.6 minutes at 180.0 s per epoch: 12 settings of 1 epoch, then about 1 epoch for the winner"
    ]
    assert len(stage.study.trials) == 12


def test_a_resumed_search_does_not_shorten_the_trials_that_an_earlier_release_began(stage):
    stage.drive(Script(start("a"), *epochs("a", 0.5, 0.6, 0.7, 0.8), end("a")), 3600)
    script = Interrupted(start("a", number=1, seconds=STEPS))
    with pytest.raises(KeyboardInterrupt):  # there is time for 12 settings of 1 epoch, and not for 12 whole ones
        stage.drive(script, 3000, n_trials=100, limit=5000, final={"training.epochs": 20})
    (begun,) = script.answers
    assert isinstance(begun, Begin)
    assert begun.epochs == 4


def test_a_limit_that_is_too_short_for_a_single_trial_is_refused_with_one_that_suffices(stage):
    script = SlowlyInterrupted(stage.clock, start("a", seconds=550.0), *epochs("a", 0.5))  # 660 s per epoch, 4 epochs
    with pytest.raises(WorkError) as refused:
        stage.drive(script, 24 * 60, n_trials=100, limit=40 * 60)
    assert str(refused.value) == (
        "search.timeout: 40 minutes are too short for a single trial, which takes 44.0 minutes on this machine;"
        " 80.8 suffice"
    )
    assert (script.started, stage.notices) == ([0], [])
    assert script.answers == [Verdict.ABANDON]
    assert "run_id" not in stage.study.trials[0].user_attrs  # nothing was begun


def test_a_limit_that_is_over_before_the_first_speed_is_known_is_refused_too(stage):
    """A worker that times its steps is not cut off, since it tells which limit suffices."""

    class Timing(Slow):
        def work(self, *arguments: Any) -> None:
            if stage.clock.ahead < 300:  # four minutes after the end of the trials
                stage.clock.ahead += 60
            else:
                super().work(*arguments)

    with pytest.raises(WorkError, match=r"1 minutes are too short for a single trial, .* 14\.4 suffice"):
        stage.drive(Timing(stage.clock, start("a", seconds=100.0)), 60, n_trials=100, limit=60, is_timed=True)
    assert "run_id" not in stage.study.trials[0].user_attrs


@pytest.mark.parametrize("seconds", [None, 0.0])
def test_only_one_trial_is_begun_after_the_limit_to_learn_the_speed(stage, seconds):
    """A worker may be unable to time its steps; its trial is cut off, and nobody else is asked for ever."""
    script = Script(start("a", seconds=seconds), start("b", number=1, seconds=seconds))
    stage.clock.ahead = 10
    stage.drive(script, 1, n_trials=100, limit=1, is_timed=True)
    assert script.started == [0]
    assert len(stage.study.user_attrs["cut_off"]) == 1


def test_trials_that_all_failed_are_no_reason_to_obey_a_limit_that_is_too_short(stage):
    stage.study.add_trial(create_trial(state=TrialState.FAIL))
    script = SlowlyInterrupted(stage.clock, start("a", seconds=550.0))
    with pytest.raises(WorkError, match="too short for a single trial"):
        stage.drive(script, 60, n_trials=100, limit=60)


def test_a_limit_that_cuts_the_first_trial_but_leaves_its_time_to_the_final_fit_is_obeyed(stage):
    script = SlowlyInterrupted(stage.clock, start("a", seconds=550.0), *epochs("a", 0.5))
    with pytest.raises(KeyboardInterrupt):
        stage.drive(script, 27 * 60, n_trials=100, limit=45 * 60)
    assert stage.notices[0].startswith("plan for 27.0 minutes")


def test_a_search_that_has_a_trial_already_is_never_refused(stage):
    stage.drive(Script(start("a"), *epochs("a", 0.5, 0.6, 0.7, 0.8), end("a")), 3600)
    last = [*epochs("a", 0.5, number=1), end("a", stopped=True, number=1)]
    stage.drive(Slow(stage.clock, start("a", number=1, seconds=550.0), *last), 240, n_trials=100, limit=400)
    assert stage.notices[0].startswith("plan for 4.0 minutes")


def test_a_machine_that_is_faster_than_expected_goes_on(stage):
    lines = [start("a", seconds=16_000.0), *epochs("a", 0.5, 0.6, 0.7, 0.8), end("a")]
    script = SlowlyInterrupted(stage.clock, *lines)
    with pytest.raises(KeyboardInterrupt):
        stage.drive(script, 6 * 3600, n_trials=100)
    assert stage.notices[0].endswith("1 setting of 1 epoch")
    assert script.started == [0, 1]


def test_no_setting_is_begun_that_cannot_come_to_its_first_rung_in_time(stage):
    script = SlowlyInterrupted(stage.clock, start("a", seconds=STEPS), *epochs("a", 0.5), pause("a"))
    with pytest.raises(KeyboardInterrupt):
        stage.drive(script, 300, n_trials=100)
    assert stage.notices[0].endswith("1 setting of 1 epoch")
    assert script.started == [0, 0]  # the only trial goes on instead
