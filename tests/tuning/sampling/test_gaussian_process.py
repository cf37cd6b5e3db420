"""The Gaussian process, on a function whose best setting is known; no network is trained."""

import math

import numpy as np
import optuna

from fmnist_exp.tuning.sampling.gaussian_process import GaussianProcessSampler


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


def test_a_setting_is_not_tried_again_with_another_width_of_a_layer_that_it_does_not_have():
    study = optuna.create_study(direction="maximize", sampler=GaussianProcessSampler(2, 0))

    def shallow(trial):
        depth = trial.suggest_int("widths.depth", 1, 2)
        widths = [trial.suggest_int(f"widths.{layer}", 16, 48, step=16) for layer in (1, 2)]
        return -depth - widths[0] / 100

    study.optimize(shallow, n_trials=9)
    tried = [(*trial.params.values(),)[: 1 + trial.params["widths.depth"]] for trial in study.trials]
    assert len(set(tried[2:])) == 7


def test_the_gaussian_process_learns_from_trials_that_are_running():
    """A search on two cores tried a weak setting twice while its best trial was in its last epoch."""
    study = optuna.create_study(direction="maximize", sampler=GaussianProcessSampler(3, 0))
    for place, accuracy in ((0.1, 0.5), (0.4, 0.5), (0.9, 0.9)):
        study.enqueue_trial({"dropout": place})
        trial = study.ask()
        trial.suggest_float("dropout", 0.0, 1.0)
        trial.report(accuracy, 1)
        if accuracy == 0.5:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    assert study.trials[-1].state == optuna.trial.TrialState.RUNNING
    assert 0.7 < study.ask().suggest_float("dropout", 0.0, 1.0) < 1


def test_a_setting_differs_from_those_that_were_tried_by_more_than_chance():
    """A search on two cores tried two of its twelve settings twice: their L2 factors differed by less than 1 %."""
    study = optuna.create_study(direction="maximize", sampler=GaussianProcessSampler(2, 0))
    study.optimize(lambda trial: -abs(trial.suggest_float("dropout", 0.0, 1.0) - 0.3), n_trials=20)
    places = np.array([trial.params["dropout"] for trial in study.trials])
    gaps = np.abs(places[:, None] - places)[np.triu_indices(20, 1)]
    assert gaps.min() > 0.019


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


def settings_after_pruning(seed: int) -> tuple[list[float], list[float]]:
    """Return how good the three settings drawn at random are, and five that follow nine pruned trials."""
    study = optuna.create_study(direction="maximize", sampler=GaussianProcessSampler(3, seed))
    tops = []
    for number in range(12):
        trial = study.ask()
        tops.append(hill(trial))
        last = 9 if number < 3 else 1
        for epoch in range(1, last + 1):
            trial.report(tops[-1] - 1 / epoch, epoch)
        pruned = None if last == 9 else optuna.trial.TrialState.PRUNED
        study.tell(trial, None if pruned else tops[-1] - 1 / 9, pruned)
    return tops[:3], [hill(study.ask()) for _ in range(5)]


def test_the_gaussian_process_learns_from_trials_that_were_pruned():
    """The curves tell settings apart from their first epoch, and only three trials are complete."""
    drawn, learned = zip(*map(settings_after_pruning, range(6)), strict=True)
    assert np.median(learned) > np.median(drawn)  # of one seed alone, a single setting that explores may decide
