"""What chooses settings, what prunes, and which way is better: from the schema's names to Optuna's objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

import optuna
from optuna.study import StudyDirection

from fmnist_exp.config import ExperimentConfig
from fmnist_exp.search_config import SearchConfig
from fmnist_exp.tuning import space
from fmnist_exp.tuning.gaussian_process import GaussianProcessSampler

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler


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
    return optuna.samplers.TPESampler(n_startup_trials=search.startup_trials, seed=seed)


def _pruner(search: SearchConfig) -> BasePruner:
    if search.pruner == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.SuccessiveHalvingPruner(search.min_epochs, search.reduction_factor)
