"""Samplers by name, and TPE in long studies; no network is trained."""

import numpy as np
import optuna
import pytest
from support.searches import STORAGE, configure

from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.sampling import build
from fmnist_exp.tuning.sampling.gaussian_process import GaussianProcessSampler


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tpe", build.BoundedTPESampler),
        ("random", optuna.samplers.RandomSampler),
        ("gp", GaussianProcessSampler),
    ],
)
def test_the_sampler_by_name(name, kind):
    study = studies.open_study(configure(search__sampler=name), "named", STORAGE)
    assert type(study.sampler) is kind


@pytest.mark.parametrize("name", ["tpe", "random", "gp"])
def test_a_study_that_goes_on_draws_other_settings_than_at_its_start(name):
    drawn = []
    for _ in range(2):
        study = studies.open_study(configure(search__sampler=name, search__startup_trials=9), "again", STORAGE)
        for _ in range(3):
            trial = study.ask()
            drawn.append(trial.suggest_float("model.dropout", 0, 0.5))
            study.tell(trial, 0.5)
    assert len(set(drawn)) == 6  # with the seed of the start, the second half would be the first again


def test_accuracy_is_to_grow_and_the_rest_to_shrink():
    config = configure(search__objectives=["val_accuracy", "prediction_seconds"])
    assert [way.name for way in build.directions(config.search)] == ["MAXIMIZE", "MINIMIZE"]


# long studies


def long_study(count: int, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    """Trials at random places of a parabola, some of them pruned; the best ones came first."""
    numbers = np.random.default_rng(0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    places = sorted(numbers.uniform(0, 1, count), key=lambda place: abs(place - 0.3))
    kinds = {"place": optuna.distributions.FloatDistribution(0, 1)}
    for number, place in enumerate(places):
        state = optuna.trial.TrialState.PRUNED if number % 3 == 2 else optuna.trial.TrialState.COMPLETE
        value, curve = -((place - 0.3) ** 2), {1: 0.0}
        ended = optuna.trial.create_trial(
            state=state, params={"place": place}, distributions=kinds, value=value, intermediate_values=curve
        )
        study.add_trial(ended)
    return study


def ask(study: optuna.Study) -> float:
    return study.ask().suggest_float("place", 0, 1)


def test_a_short_study_is_searched_as_by_optuna():
    ours, theirs = build.BoundedTPESampler(seed=1), optuna.samplers.TPESampler(seed=1)
    assert ask(long_study(build.SEEN, ours)) == ask(long_study(build.SEEN, theirs))


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_in_a_long_study_the_good_trials_are_the_same(direction):
    from optuna.samplers._tpe import sampler as tpe

    study = optuna.create_study(direction=direction)
    study.add_trials(long_study(1000, build.BoundedTPESampler()).trials)
    states = [optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED]
    seen = build.best_and_newest(study.get_trials(deepcopy=False, states=states), study.direction)
    assert build.SEEN - build.GOOD <= len(seen) <= build.SEEN
    assert seen == sorted(seen, key=lambda trial: trial.number)
    good = [tpe._split_trials(study, trials, tpe.default_gamma(1000))[0] for trials in (study.trials, seen)]
    assert [trial.number for trial in good[0]] == [trial.number for trial in good[1]]
    assert {trial.number for trial in seen} >= set(range(1000 - build.SEEN + build.GOOD, 1000))


def test_more_startup_trials_than_tpe_looks_at_end_as_well():
    study = long_study(build.SEEN + 100, build.BoundedTPESampler(n_startup_trials=build.SEEN + 50, seed=1))
    assert np.mean([abs(ask(study) - 0.3) < 0.1 for _ in range(20)]) > 0.7  # a random place would be that near in 20 %


@pytest.mark.parametrize("late", [False, True], ids=["in order", "one trial ends late"])
def test_while_a_study_grows_the_best_trials_are_those_of_a_look_at_all(late):
    study = long_study(700, build.BoundedTPESampler())
    trials = study.get_trials()
    trials[450].state = optuna.trial.TrialState.RUNNING if late else trials[450].state
    known = build.BestTrials()
    for count in range(build.SEEN + 1, 701, 7):
        if count > 600:
            trials[450].state = optuna.trial.TrialState.COMPLETE
            trials[450].value = 0.5  # better than any other
        seen = trials[:count]
        assert build.best_and_newest(seen, study.direction, known) == build.best_and_newest(seen, study.direction)
    assert build.best_and_newest(trials, study.direction, known)[0].number == 0


def test_a_long_study_still_finds_the_place():
    study = long_study(1000, build.BoundedTPESampler(seed=1))
    assert np.mean([abs(ask(study) - 0.3) < 0.1 for _ in range(20)]) > 0.8


def test_several_objectives_are_searched_with_all_trials():
    studies_of_two = []
    for kind in (build.BoundedTPESampler, optuna.samplers.TPESampler):
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=kind(seed=1))
        for trial in long_study(build.SEEN + 50, study.sampler).trials:
            trial.values, trial.intermediate_values = [trial.value, 1.0], {}
            study.add_trial(trial)
        studies_of_two.append(study)
    assert ask(studies_of_two[0]) == ask(studies_of_two[1])
