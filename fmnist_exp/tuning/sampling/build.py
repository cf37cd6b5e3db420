"""Build Optuna's samplers from their names in the schema."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Container, Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalChoiceType
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from fmnist_exp import compat
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.config.search import SearchConfig
from fmnist_exp.tuning import record
from fmnist_exp.tuning.space import SearchSpace

SEEN = 400  # trials that TPE looks at
GOOD = 25  # how many of them are the best ones: as many as TPE ever counts as good


def configure(study: Study, config: ExperimentConfig) -> None:
    """Set the sampler of an opened study, and no pruner, since the driver has successive halving of its own.

    The sampler's seed depends on the number of trials, since a resumed study would otherwise draw its first settings a
    second time.
    """
    search = SearchSpace(config).search
    seed = (config.seed + len(study.get_trials(deepcopy=False))) % 2**32
    study.sampler = _sampler(search, seed)
    study.pruner = NopPruner()


def directions(search: SearchConfig) -> list[StudyDirection]:
    """Return for each objective whether it is maximised or minimised."""
    better = {"val_accuracy": StudyDirection.MAXIMIZE}
    return [better.get(name, StudyDirection.MINIMIZE) for name in search.objectives]


def _sampler(search: SearchConfig, seed: int) -> BaseSampler:
    if search.sampler == "random":
        return RandomSampler(seed=seed)
    if search.sampler == "gp":
        # imported here because scikit-learn takes more than a second, which the other samplers need not pay
        from fmnist_exp.tuning.sampling.gaussian_process import GaussianProcessSampler

        return GaussianProcessSampler(search.startup_trials, seed)
    return BoundedTPESampler(n_startup_trials=search.startup_trials, seed=seed)


class BoundedTPESampler(TPESampler):
    """TPE (Bergstra et al. 2011) over the best and the newest trials, so that it stays fast in a long study.

    The trials that Optuna counts as good stay the same. With several objectives any trial may be good, so TPE uses all
    trials then.
    """

    def __init__(self, n_startup_trials: int = 10, **options: Any) -> None:
        super().__init__(n_startup_trials=n_startup_trials, **options)
        self._best = BestTrials(max(SEEN, n_startup_trials + GOOD))  # or TPE would wait for more for ever

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, CategoricalChoiceType]:
        """Return values for the parameters that TPE models jointly."""
        return super().sample_relative(self._bounded(study), trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> CategoricalChoiceType:
        """Return a value for one parameter that is not modelled jointly, as while there are few trials."""
        value: CategoricalChoiceType = super().sample_independent(
            self._bounded(study), trial, param_name, param_distribution
        )
        return value

    def _bounded(self, study: Study) -> Study:
        if len(study.directions) > 1:
            return study
        return compat.select_trials(
            study, lambda trials, states: best_and_newest(trials, study.direction, self._best, states)
        )


class BestTrials:
    """Finds the best complete trials of a study that grows, without looking at all of its trials each time."""

    def __init__(self, seen: int = SEEN) -> None:
        self.seen = seen  # number of trials that the sampler looks at
        self._best: list[FrozenTrial] = []  # of those up to this number
        self._number = -1

    def find(self, trials: Sequence[FrozenTrial], direction: StudyDirection) -> list[FrozenTrial]:
        """Return the GOOD best of more than `seen` trials in the order of their numbers; the best one comes first."""
        sign = 1 if direction == StudyDirection.MAXIMIZE else -1

        def best_of(chosen: list[FrozenTrial]) -> list[FrozenTrial]:
            complete = [*self._best, *(trial for trial in chosen if trial.state == TrialState.COMPLETE)]
            return heapq.nsmallest(GOOD, complete, key=lambda trial: (-sign * (trial.value or 0.0), trial.number))

        new = list(itertools.takewhile(lambda trial: trial.number > self._number, reversed(trials)))
        # a trial may still be running while newer ones end, but hardly while `seen` newer ones do
        running = min((trial.number for trial in new if not trial.state.is_finished()), default=trials[-1].number)
        number = min(trials[-self.seen].number, running - 1)
        best = best_of(new)
        self._best = best_of([trial for trial in new if trial.number <= number])
        self._number = max(number, self._number)
        return best


def best_and_newest(
    trials: Sequence[FrozenTrial],
    direction: StudyDirection,
    known: BestTrials | None = None,
    states: Container[TrialState] | None = None,
) -> list[FrozenTrial]:
    """Return the best and the newest trials, SEEN in total, in the order of their numbers.

    Args:
        trials: all trials, in the order of their numbers.
        direction: whether their values are maximised.
        known: the best trials of an earlier call, which this one updates.
        states: the states of the newest trials; None stands for any.
    """
    newer = map(record.as_pruned, reversed(trials))
    fitting = (trial for trial in newer if states is None or trial.state in states)
    known = known or BestTrials()
    newest = list(itertools.islice(fitting, known.seen + 1))
    if len(newest) <= known.seen:
        return newest[::-1]
    best = known.find(trials, direction)
    chosen = {trial.number: trial for trial in [*best, *newest[: known.seen - len(best)]]}
    return [chosen[number] for number in sorted(chosen)]
