"""The objectives of a search and its warnings about them, without training."""

import optuna
from optuna.trial import TrialState
from support.searches import configure

from fmnist_exp.tuning import objectives


def test_a_time_that_neighbours_make_longer_is_warned_of():
    timed = configure(search__objectives=["val_accuracy", "prediction_seconds"]).search
    assert "--workers 1" in objectives.warning(timed, 2)
    assert objectives.warning(timed, 1) == objectives.warning(configure().search, 2) == ""


def test_curves_of_a_study_that_takes_no_reports():
    study = optuna.create_study(directions=["maximize", "minimize"])
    trial = study.ask()
    assert not any(objectives.report(trial, epoch, epoch / 10) for epoch in (1, 2, 3))
    study.tell(trial, [0.3, 5])
    cut = study.ask()
    objectives.report(cut, 1, 0.2)
    study.tell(cut, state=TrialState.PRUNED)  # the time was over
    assert [objectives.curve(ended) for ended in study.trials] == [{1: 0.1, 2: 0.2, 3: 0.3}, {1: 0.2}]
