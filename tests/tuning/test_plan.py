"""The plan of a search, on recorded speeds: how many settings fit into the time, and in which rounds."""

import pytest
from optuna.trial import TrialState
from support.scripts import Interrupted, Script, Slow, end, epochs, pause, start

from fmnist_exp.config import files
from fmnist_exp.errors import WorkError
from fmnist_exp.tuning import plan
from fmnist_exp.tuning.plan import ENOUGH, Pace
from fmnist_exp.tuning.workers.messages import Envelope, Progress, Verdict


def make(seconds: float, minutes: float, most: int = 12, workers: int = 2, **changes: object) -> plan.Plan:
    """Return the plan of tune_cnn, of which one worker trains an epoch in this time."""
    fields = {name if name == "final" else f"search.{name}": value for name, value in changes.items()}
    config = files.load("tune_cnn", fields)
    affordable, overhead = minutes * 60 * workers / seconds, plan.TRIAL_SECONDS / seconds
    return plan.make(config, most, affordable, overhead)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        # seconds per epoch of a worker with one core; 6.6 of the 11 minutes are for trials
        (12.0, "12 settings in 3 rounds, which end after 2, 4 and 5 epochs"),  # with bfloat16: 12 to 30
        (18.0, "12 settings in 3 rounds, which end after 2, 4 and 5 epochs"),
        (25.0, "12 settings in 4 rounds, which end after 1, 2, 4 and 5 epochs"),
        (30.0, "12 settings of 1 epoch"),
        (60.0, "12 settings of 1 epoch"),  # without bfloat16
    ],
)
def test_at_least_twelve_settings_are_compared(seconds, expected):
    assert make(seconds, 6.6).text == expected


def test_without_a_final_fit_the_time_goes_to_the_best_trials():
    """With one, the fit of the winner starts anew, and needs the time itself."""
    found = make(30.0, 6.6, final="")
    assert found.text == "12 settings in 2 rounds, which end after 1 and 5 epochs"


def test_a_processor_that_is_too_slow_for_twelve_gets_fewer():
    found = make(120.0, 6.6)
    assert (found.settings, found.rounds) == (6, (1,))
    assert make(10_000.0, 6.6).settings == 1


def test_no_more_than_twelve_are_begun_where_nobody_is_sure_to_be_trained_to_the_end():
    """A plan of 18 settings would have left no time for the best of them."""
    assert make(38.7, 6.3, most=20).text == "12 settings of 1 epoch"


def test_more_settings_are_no_reason_to_judge_them_earlier():
    found = make(18.0, 6.6, most=100)
    assert found.settings >= ENOUGH
    assert (found.first, found.factor) == (2, 2)


def test_the_time_is_used():
    """One more setting would not fit."""
    for most in (50, 100_000):
        found = make(18.0, 60, most=most)
        search = files.load("tune_cnn", {}).search
        room = 60 * 60 * 2 / 18.0
        assert plan._cost(found.settings, found.rounds, search.reduction_factor, 2 / 18) <= room
        assert found.settings == most or plan._cost(found.settings + 1, found.rounds, 2, 2 / 18) > room


def test_the_winner_gets_the_epochs_of_its_final_fit_or_what_there_is_time_for():
    config = files.load("tune_cnn", {})
    assert plan.winner_text(config, 4.4 * 60 * 2 / 5.7) == ", then up to 18 epochs for the winner"
    assert plan.winner_text(config, 4.4 * 60 * 2 / 60) == ", then up to 5 epochs for the winner"
    assert plan.winner_text(config, 0.5) == ", then up to 1 epoch for the winner"
    assert plan.winner_text(files.load("tune_mlp", {}), 10.0) == ""


def test_without_halving_every_setting_is_trained_to_the_end():
    assert make(18.0, 6.6, pruner="none").text == "8 settings of 5 epochs"


def test_the_rungs_are_those_of_the_halving():
    assert plan.rungs(1, 3, 51) == (1, 3, 9, 27, 51)
    assert plan.rungs(5, 2, 5) == (5,)


def test_one_setting_and_one_epoch_are_written_as_such():
    assert plan.Plan(1, 1, 3, (1,)).text == "1 setting of 1 epoch"


def test_the_pace_is_that_of_the_steps_after_the_first_report():
    pace = Pace()
    assert pace.observe("a", 0.1, 100.0, 1) is None  # the network may have been compiled before
    assert pace.observe("a", 0.2, 102.0, 1) is None
    assert pace.observe("b", 0.1, 104.0, 1) is None
    assert pace.observe("a", 0.6, 110.0, 1) == pytest.approx(plan.SLOWER * 10 / 0.5)


def test_the_pace_is_the_mean_of_a_trial_of_each_worker():
    """A search on two cores planned 17 settings by the speed of a small network, and came to 7."""
    pace = Pace()
    for when, small, large in ((0.0, 0.1, 0.02), (4.0, 0.4, 0.08)):
        assert pace.observe("small", small, when, 2) is None
        assert pace.observe("large", large, when, 2) is None
    assert pace.observe("small", 0.6, 6.0, 2) is None  # the large one has shown nothing yet
    assert pace.observe("large", 0.12, 6.0, 2) == pytest.approx(plan.SLOWER * (6 / 0.5 + 6 / 0.1) / 2)


def test_the_pace_is_known_when_the_first_trial_ends_its_first_epoch():
    """A small network was trained for two epochs, because the other one had not been measured for 5 seconds yet."""
    pace = Pace()
    assert pace.observe("small", 0.5, 0.0, 2) is None
    assert pace.observe("large", 0.1, 2.0, 2) is None
    assert pace.observe("small", 0.9, 4.8, 2) is None
    assert pace.observe("large", 0.2, 5.0, 2) is None
    assert pace.observe("small", 1.0, 6.0, 2) == pytest.approx(plan.SLOWER * (6 / 0.5 + 3 / 0.1) / 2)


def test_the_end_of_an_epoch_does_not_replace_a_speed_that_is_unknown():
    pace = Pace()
    assert pace.observe("large", 0.1, 2.0, 2) is None
    assert pace.observe("small", 0.5, 0.0, 2) is None
    assert pace.observe("small", 1.0, 6.0, 2) is None
    quick = Pace()  # whose epochs are shorter than any time that can be measured
    assert quick.observe("a", 0.5, 0.0, 1) is None
    assert quick.observe("a", 1.0, 0.1, 1) is None


class SlowlyInterrupted(Interrupted, Slow):
    """A script that has a minute between two messages, and is interrupted after the last one."""


def test_the_search_says_its_plan_once_and_keeps_to_it(stage):
    steps = [Envelope(0, "a", Progress(done)) for done in (0.1, 0.5, 0.9)]
    lines = [start("a"), *steps, *epochs("a", 0.5), pause("a")]
    for number in range(1, 5):
        lines += [start("a", number=number), *epochs("a", 0.4, number=number), end("a", stopped=True, number=number)]
    script = SlowlyInterrupted(stage.clock, *lines)
    with pytest.raises(KeyboardInterrupt):
        stage.drive(script, 3600, n_trials=100)
    assert stage.notices == [
        "plan for 58.0 minutes at 165.0 s per epoch: 14 settings in 2 rounds, which end after 1 and 4 epochs"
    ]
    assert script.answers[len(steps) + 1] is Verdict.CONTINUE  # the own setting, though time is short
    # the factor is 12 now: with that of the experiment, 3, the first trial would have gone on after the third one
    assert script.started == [0, 1, 2, 3, 4, 5]
    assert script.answers.count(Verdict.STOP) == 4


def test_where_time_is_short_every_trial_ends_after_its_first_round_and_leaves_the_rest_to_the_final_fit(stage):
    steps = [Envelope(0, "a", Progress(done)) for done in (0.1, 0.5, 0.9)]
    lines = [start("a"), *steps, *epochs("a", 0.6), end("a", stopped=True)]
    for number in range(1, 12):
        lines += [start("a", number=number), *epochs("a", 0.4, number=number), end("a", stopped=True, number=number)]
    script = Slow(stage.clock, *lines)
    stage.drive(script, 3000, n_trials=100, limit=5000, final={"training.epochs": 20})
    assert stage.notices == [
        "plan for 48.0 minutes at 165.0 s per epoch: 12 settings of 1 epoch, then up to 10 epochs for the winner"
    ]
    assert script.answers.count(Verdict.STOP) == len(script.started) == 12  # though there is time for more
    assert {trial.state for trial in stage.study.get_trials(deepcopy=False)} == {TrialState.PRUNED}


def test_the_plan_judges_the_first_epoch_of_the_trial_that_decided_it(stage):
    lines = [start("a"), Envelope(0, "a", Progress(0.5)), *epochs("a", 0.6), end("a", stopped=True)]
    for number in range(1, 12):
        lines += [start("a", number=number), *epochs("a", 0.4, number=number), end("a", stopped=True, number=number)]
    script = Slow(stage.clock, *lines)
    stage.drive(script, 2400, n_trials=100, limit=5000, final={"training.epochs": 20})
    assert stage.notices[0].startswith("plan for 38.0 minutes at 132.0 s per epoch: 12 settings of 1 epoch")
    assert script.answers.count(Verdict.STOP) == 12


def test_a_limit_that_is_too_short_for_a_single_trial_is_refused_with_one_that_suffices(stage):
    steps = [Envelope(0, "a", Progress(done)) for done in (0.1, 0.2)]  # 660 s per epoch, 4 epochs
    script = SlowlyInterrupted(stage.clock, start("a"), *steps, *epochs("a", 0.5))
    with pytest.raises(WorkError) as refused:
        stage.drive(script, 24 * 60, n_trials=100, limit=40 * 60)
    assert str(refused.value) == (
        "search.timeout: 40 minutes are too short for a single trial, which takes 41.8 minutes on this machine;"
        " 80.4 suffice"
    )
    assert (script.started, script.dropped, stage.notices) == ([0], [0], [])


def test_a_limit_that_cuts_the_first_trial_but_leaves_its_time_to_the_final_fit_is_obeyed(stage):
    steps = [Envelope(0, "a", Progress(done)) for done in (0.1, 0.2)]
    script = SlowlyInterrupted(stage.clock, start("a"), *steps, *epochs("a", 0.5))
    with pytest.raises(KeyboardInterrupt):
        stage.drive(script, 27 * 60, n_trials=100, limit=45 * 60)
    assert stage.notices[0].startswith("plan for 25.0 minutes")


def test_a_search_that_has_a_trial_already_is_never_refused(stage):
    stage.drive(Script(start("a"), *epochs("a", 0.5, 0.6, 0.7, 0.8), end("a")), 3600)
    steps = [Envelope(1, "a", Progress(done)) for done in (0.1, 0.2)]
    last = [*epochs("a", 0.5, number=1), end("a", stopped=True, number=1)]
    stage.drive(Slow(stage.clock, start("a", number=1), *steps, *last), 240, n_trials=100, limit=400)
    assert stage.notices[0].startswith("plan for 2.0 minutes")


def test_a_machine_that_is_faster_than_expected_goes_on(stage):
    steps = [Envelope(0, "a", Progress(done)) for done in (0.1, 0.11)]
    lines = [start("a"), *steps, *epochs("a", 0.5, 0.6, 0.7, 0.8), end("a")]
    script = SlowlyInterrupted(stage.clock, *lines)
    with pytest.raises(KeyboardInterrupt):
        stage.drive(script, 2 * 3600, n_trials=100)
    assert stage.notices[0].endswith("1 setting of 1 epoch")
    assert script.started == [0, 1]


def test_no_setting_is_begun_that_cannot_come_to_its_first_rung_in_time(stage):
    progress = (0.1, 0.5, 0.9, 0.91, 0.92, 0.93, 0.94)  # it becomes slower after the plan is made
    steps = [Envelope(0, "a", Progress(done)) for done in progress]
    script = SlowlyInterrupted(stage.clock, start("a"), *steps, *epochs("a", 0.5), pause("a"))
    with pytest.raises(KeyboardInterrupt):
        stage.drive(script, 700, n_trials=100)
    assert stage.notices[0].endswith("3 settings of 1 epoch")
    assert script.started == [0, 0]  # the only trial goes on instead
