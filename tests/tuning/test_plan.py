"""The plan of a search, on recorded speeds: how many settings fit into the time, and in which rounds."""

import pytest

from fmnist_exp.config import files
from fmnist_exp.tuning import plan
from fmnist_exp.tuning.plan import ENOUGH, Budget


def make(
    seconds: float, minutes: float = 6.6, most: int = 12, known: int | None = None, **changes: object
) -> plan.Plan:
    """Return the plan of tune_cnn, with rungs after epochs 2 and 4, on two workers that train an epoch in this time.

    The trials have `minutes`, and the final fit of 18 epochs has two thirds of that.
    """
    halving = {"pruner": "successive_halving", "min_epochs": 2, "reduction_factor": 2}
    changes = {**halving, "final": {"training.epochs": 18}, **changes}
    fields = {name if name == "final" else f"search.{name}": value for name, value in changes.items()}
    at_once = 2 / seconds
    final = (minutes * 60 * 2 / 3 - plan.FINAL_SECONDS) * at_once
    budget = Budget(minutes * 60 * at_once, final, plan.TRIAL_SECONDS / seconds)
    return plan.make(files.load("tune_cnn", fields), most, budget, known)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        # seconds per epoch of a worker with one core; 6.6 of the 11 minutes are for trials
        (12.0, "12 settings in 3 rounds, which end after 2, 4 and 5 epochs, then about 18 epochs for the winner"),
        (14.0, "12 settings in 3 rounds, which end after 2, 4 and 5 epochs, then about 18 epochs for the winner"),
        (18.0, "12 settings of 2 epochs, then about 18 epochs for the winner"),
        (22.0, "12 settings of 1 epoch, then about 18 epochs for the winner"),
        (30.0, "12 settings of 1 epoch, then about 16 epochs for the winner"),
        (60.0, "12 settings of 1 epoch, then about 3 epochs for the winner"),
        (75.0, "12 settings of 1 epoch, then about 1 epoch for the winner"),
        (80.0, "12 settings of 1 epoch"),
        (95.0, "12 settings of 1 epoch"),
    ],
)
def test_at_least_twelve_settings_are_compared(seconds, expected):
    assert make(seconds).text == expected


def test_shortened_trials_are_schedules_of_their_own_and_leave_the_rest_to_the_final_fit():
    for seconds in (22.0, 30.0, 60.0):
        found = make(seconds)
        assert found.rounds == (found.epochs,)
        assert found.epochs < 5


def test_trials_are_no_longer_than_the_final_fit_can_spare():
    """Twelve settings of 2 epochs would fit at 25 seconds, but a final fit of 18 epochs would not fit as well."""
    assert plan._cost(12, (2,), 1, 2 / 25, plan.LARGER) < 6.6 * 60 * 2 / 25
    assert make(25.0).epochs == 1
    assert make(25.0, final={"training.epochs": 5}).epochs == 2


def test_trials_are_shortened_where_networks_larger_than_the_own_one_would_not_fit():
    """Of 12 settings only 9 came, since the Gaussian process prefers large networks."""
    assert plan._count((5,), 1, 12, Budget(6.6 * 60 * 2 / 12, 0.0, 2 / 12)) == 12
    assert make(12.0, pruner="none").epochs == 4
    assert make(9.0, pruner="none").epochs == 5


def test_without_a_final_fit_the_time_goes_to_the_best_trials():
    """A final fit starts anew, so it would need that time itself."""
    found = make(30.0, final="")
    assert found.text == "12 settings in 2 rounds, which end after 1 and 5 epochs"
    assert found.epochs == 5


@pytest.mark.parametrize("known", [1, 2])
def test_a_resumed_search_keeps_the_epochs_of_its_trials(known):
    """Accuracies after another number of epochs could not be compared with the earlier ones."""
    for seconds in (3.0, 30.0, 300.0):
        found = make(seconds, known=known)
        assert (found.epochs, found.rounds) == (known, (known,))


def test_a_resumed_search_with_whole_trials_judges_them_earlier_where_time_is_short():
    found = make(30.0, known=5)
    assert (found.epochs, found.rounds, found.factor) == (5, (1, 5), 6)


def test_trials_whose_epochs_are_searched_are_not_shortened():
    space = {"training.epochs": {"low": 3, "high": 5}}
    found = make(30.0, space=space)
    assert (found.epochs, found.rounds) == (5, (1, 5))


def test_a_processor_that_is_too_slow_for_twelve_gets_fewer():
    """The trials then have the whole time of the search, except for that of logging the winner."""
    found = make(120.0)
    assert (found.settings, found.rounds, found.final) == (10, (1,), 0)
    assert found.borrowed * 120 / 2 == pytest.approx(4.4 * 60 - plan.FINAL_SECONDS)
    assert make(120.0, final="").borrowed == 0
    assert make(10_000.0).settings == 1


def test_time_is_lent_to_the_trials_only_where_twelve_would_not_come_to_an_end():
    assert [make(seconds).borrowed for seconds in (12.0, 30.0, 50.0)] == [0, 0, 0]
    lent = make(70.0)
    needed = plan._cost(12, (1,), 1, 2 / 70, plan.LARGER)
    assert 6.6 * 60 * 2 / 70 + lent.borrowed == pytest.approx(needed)


def test_no_more_than_twelve_are_begun_where_trials_are_shortened():
    """A plan of 18 settings would have left no time for the best of them."""
    assert make(38.7, 6.3, most=20).text.startswith("12 settings of 1 epoch")


def test_more_settings_are_no_reason_to_shorten_trials():
    found = make(14.0, most=100)
    assert found.settings >= ENOUGH
    assert (found.rounds, found.factor) == ((2, 4, 5), 2)


def test_the_time_is_used():
    """One more setting would not fit, if the others are as large as they may be expected to be."""
    for most in (50, 100_000):
        found = make(18.0, 60, most=most)
        room = 60 * 60 * 2 / 18.0
        assert plan._cost(found.settings, found.rounds, found.factor, 2 / 18, plan.LARGER) <= room
        assert found.settings == most or plan._cost(found.settings + 1, found.rounds, 2, 2 / 18, plan.LARGER) > room


def test_the_winner_gets_the_epochs_of_its_final_fit_or_what_there_is_time_for():
    config = files.load("tune_cnn", {"final": {"training.epochs": 18}})
    assert [plan._final(config, affordable) for affordable in (100.0, 10.0, 0.5, -1.0)] == [18, 6, 0, 0]
    assert plan._final(files.load("tune_mlp", {}), 10.0) == 0


def test_without_halving_every_setting_is_trained_to_the_end():
    assert make(18.0, pruner="none", final="").text == "8 settings of 5 epochs"
    assert make(9.0, pruner="none").text.startswith("12 settings of 5 epochs")
    assert make(18.0, pruner="none").text.startswith("12 settings of 2 epochs")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(5.5, "20 settings of 5"), (9.0, "13 settings of 5"), (11.9, "12 settings of 4"), (13.0, "12 settings of 4")],
)
def test_the_shipped_search_trains_complete_schedules(seconds, expected):
    """Halving after epochs 2 and 4 of 5 kept small networks with a low learning rate."""
    assert make(seconds, most=20, pruner="none").text == f"{expected} epochs, then about 18 epochs for the winner"
    assert files.load("tune_cnn", {}).search.pruner == "none"


def test_the_rungs_are_those_of_the_halving():
    assert plan.rungs(1, 3, 51) == (1, 3, 9, 27, 51)
    assert plan.rungs(5, 2, 5) == (5,)


def test_one_setting_and_one_epoch_are_written_as_such():
    assert plan.Plan(1, 1, 3, (1,), 1).text == "1 setting of 1 epoch, then about 1 epoch for the winner"
