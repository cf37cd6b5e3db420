"""Samplers and pruners by name, on functions whose best setting is known: no network is trained."""

import math

import numpy as np
import optuna
import pytest
from support.searches import STORAGE, configure

from fmnist_exp.config import files
from fmnist_exp.errors import RequestError
from fmnist_exp.tuning import objectives
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.sampling import build as samplers
from fmnist_exp.tuning.sampling.gaussian_process import GaussianProcessSampler


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tpe", samplers.BoundedTPESampler),
        ("random", optuna.samplers.RandomSampler),
        ("gp", GaussianProcessSampler),
    ],
)
def test_the_sampler_by_name(name, kind):
    study = studies.open_study(configure(search__sampler=name), "named", STORAGE)
    assert type(study.sampler) is kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [("successive_halving", optuna.pruners.SuccessiveHalvingPruner), ("none", optuna.pruners.NopPruner)],
)
def test_the_pruner_by_name(name, kind):
    study = studies.open_study(configure(search__pruner=name), "named", STORAGE)
    assert type(study.pruner) is kind


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


def hill(trial: optuna.Trial) -> float:
    """Highest, 0, at a rate of 0.005, a width of 96, depth 10, and "b"."""
    rate = trial.suggest_float("rate", 1e-4, 1e-1, log=True)
    width = trial.suggest_int("width", 16, 128, step=16)
    depth = trial.suggest_int("depth", 1, 1000, log=True)
    choice = trial.suggest_categorical("choice", ["a", "b", "c"])
    trial.suggest_float("fixed", 0.5, 0.5)
    return (
        -((math.log10(rate) + 2.3) ** 2)
        - ((width - 96) / 64) ** 2
        - (math.log10(depth) - 1) ** 2 / 4
        - 0.3 * (choice != "b")
    )


def best(sampler: optuna.samplers.BaseSampler, trials: int = 20) -> float:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(hill, n_trials=trials)
    return study.best_value


def test_the_gaussian_process_finds_a_hill_that_chance_does_not():
    learned = [best(GaussianProcessSampler(5, seed)) for seed in range(3)]
    random = [best(optuna.samplers.RandomSampler(seed=seed)) for seed in range(3)]
    assert np.mean(learned) > np.mean(random) / 2  # at most half as far below the top


def test_the_gaussian_process_repeats_itself_with_its_seed():
    assert best(GaussianProcessSampler(3, 7), 6) == best(GaussianProcessSampler(3, 7), 6)


def test_the_gaussian_process_sends_workers_to_different_places():
    study = optuna.create_study(direction="maximize", sampler=GaussianProcessSampler(4, 0))
    study.optimize(hill, n_trials=6)
    asked = [study.ask() for _ in range(3)]
    for trial in asked:
        hill(trial)
    places = {(trial.params["rate"], trial.params["width"], trial.params["depth"]) for trial in asked}
    assert len(places) == 3


def test_the_gaussian_process_knows_pruned_and_failed_trials_and_several_objectives():
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=GaussianProcessSampler(3, 0))
    pruned, failed = study.ask(), study.ask()
    hill(pruned), hill(failed)
    study.tell(pruned, state=optuna.trial.TrialState.PRUNED)
    study.tell(failed, state=optuna.trial.TrialState.FAIL)
    study.optimize(lambda trial: (hill(trial), trial.params["width"]), n_trials=10)
    assert len(study.best_trials) > 1
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 12  # no setting twice


def test_the_gaussian_process_goes_on_when_its_latest_trials_were_all_pruned():
    study = optuna.create_study(direction="maximize", sampler=GaussianProcessSampler(3, 0))
    study.optimize(hill, n_trials=1)
    first = study.trials[0]
    for _ in range(200):
        study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.PRUNED, params=first.params, distributions=first.distributions
            )
        )
    study.optimize(hill, n_trials=1)
    assert study.trials[-1].params != first.params


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"search.sampler": "grid"}, "search.sampler='grid': must be one of tpe, random, gp"),
        ({"search.pruner": "median"}, "search.pruner='median': must be one of successive_halving, none"),
        (
            {"search.objectives": ["val_accuracy", "seconds"]},
            "search.objectives='seconds': input should be 'val_accuracy', 'parameters' or 'prediction_seconds'",
        ),
        ({"search.objectives": ["parameters"]}, "search.objectives must begin with val_accuracy"),
        ({"search.objectives": []}, "search.objectives must begin with val_accuracy"),
        ({"search.objectives": ["val_accuracy", "val_accuracy"]}, "search.objectives names one objective twice"),
        (
            {"search.objectives": ["val_accuracy", "parameters"], "search.pruner": "successive_halving"},
            "requires search.pruner=none",
        ),
        ({"search.objectives": ["val_accuracy", "parameters"], "search.refit": 3}, "requires search.refit=0 or 1"),
        ({"search.refit": 21}, "search.refit=21: must be at least 0 and at most 20"),
        ({"search.keep": 0}, "search.keep=0: must be at least 1 and at most 100000"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(wrong, reason):
    with pytest.raises(RequestError) as raised:
        files.override(configure(), wrong)
    assert reason in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_time_that_neighbours_make_longer_is_warned_of():
    timed = configure(search__objectives=["val_accuracy", "prediction_seconds"]).search
    assert "--workers 1" in objectives.warning(timed, 2)
    assert objectives.warning(timed, 1) == objectives.warning(configure().search, 2) == ""


def test_accuracy_is_to_grow_and_the_rest_to_shrink():
    config = configure(search__objectives=["val_accuracy", "prediction_seconds"])
    assert [way.name for way in samplers.directions(config.search)] == ["MAXIMIZE", "MINIMIZE"]


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
    ours, theirs = samplers.BoundedTPESampler(seed=1), optuna.samplers.TPESampler(seed=1)
    assert ask(long_study(samplers.SEEN, ours)) == ask(long_study(samplers.SEEN, theirs))


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_in_a_long_study_the_good_trials_are_the_same(direction):
    from optuna.samplers._tpe import sampler as tpe

    study = optuna.create_study(direction=direction)
    study.add_trials(long_study(1000, samplers.BoundedTPESampler()).trials)
    states = [optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED]
    seen = samplers._bounded(study)._get_trials(deepcopy=False, states=states, use_cache=True)
    assert samplers.SEEN - samplers.GOOD <= len(seen) <= samplers.SEEN
    assert seen == sorted(seen, key=lambda trial: trial.number)
    good = [tpe._split_trials(study, trials, tpe.default_gamma(1000))[0] for trials in (study.trials, seen)]
    assert [trial.number for trial in good[0]] == [trial.number for trial in good[1]]
    assert {trial.number for trial in seen} >= set(range(1000 - samplers.SEEN + samplers.GOOD, 1000))


def test_a_long_study_still_finds_the_place():
    study = long_study(1000, samplers.BoundedTPESampler(seed=1))
    assert np.mean([abs(ask(study) - 0.3) < 0.1 for _ in range(20)]) > 0.8


def test_several_objectives_are_searched_with_all_trials():
    study = optuna.create_study(directions=["maximize", "minimize"])
    assert samplers._bounded(study) is study
