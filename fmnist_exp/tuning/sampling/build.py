"""What chooses settings, what prunes, and which way is better: from the schema's names to Optuna's objects."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState

from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.config.search import SearchConfig
from fmnist_exp.tuning import space
from fmnist_exp.tuning.sampling.gaussian_process import GaussianProcessSampler

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

SEEN = 400  # trials that TPE looks at
GOOD = 25  # of them the best: as many as TPE ever takes for good ones


def equip(study: Study, config: ExperimentConfig) -> None:
    """Give an opened study its sampler and pruner.

    The sampler's seed moves on with the trials that are there: with the same seed a study that goes on would draw its
    first settings a second time.
    """
    search = space.search_of(config)
    seed = (config.seed + len(study.get_trials(deepcopy=False))) % 2**32
    study.sampler = _sampler(search, seed)
    study.pruner = _pruner(search)


def directions(search: SearchConfig) -> list[StudyDirection]:
    """Which way each objective is better."""
    better = {"val_accuracy": StudyDirection.MAXIMIZE}
    return [better.get(name, StudyDirection.MINIMIZE) for name in search.objectives]


def _sampler(search: SearchConfig, seed: int) -> BaseSampler:
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if search.sampler == "gp":
        return GaussianProcessSampler(search.startup_trials, seed)
    return BoundedTPESampler(n_startup_trials=search.startup_trials, seed=seed)


def _pruner(search: SearchConfig) -> BasePruner:
    if search.pruner == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.SuccessiveHalvingPruner(search.min_epochs, search.reduction_factor)


class BoundedTPESampler(optuna.samplers.TPESampler):
    """TPE (Bergstra et al. 2011) over the best and the newest trials, so that long studies are as quick as short ones.

    What Optuna takes for good ones, 25 at most, stays the same once so many are complete; the others are the newest
    instead of all.
    """

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> Any:
        """Values of the parameters that are drawn together."""
        return super().sample_relative(_bounded(study), trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A value of one parameter, while there are few trials."""
        return super().sample_independent(_bounded(study), trial, param_name, param_distribution)


def _bounded(study: Study) -> Any:
    """The study as the sampler may see it; one of several objectives as it is, since its good ones may be any."""
    return study if len(study.directions) > 1 else _Window(study)


class _Window:
    """A study without most of its trials."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(self, *args: Any, **options: Any) -> list[FrozenTrial]:
        trials = self._study._get_trials(*args, **options)
        if len(trials) <= SEEN:
            return trials
        sign = 1 if self._study.direction == StudyDirection.MAXIMIZE else -1
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        best = heapq.nsmallest(GOOD, complete, key=lambda trial: (-sign * (trial.value or 0.0), trial.number))
        chosen = {trial.number: trial for trial in [*best, *trials[len(best) - SEEN :]]}
        return [chosen[number] for number in sorted(chosen)]
