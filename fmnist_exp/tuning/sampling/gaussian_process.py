"""A Gaussian process as Optuna sampler, on scikit-learn: Optuna's own needs PyTorch, a gigabyte for one option.

It maximises the expected improvement (Jones et al. 1998) of a Matérn 5/2 process with a length scale per parameter.
Several objectives become one by a random weighting in each trial (ParEGO, Knowles 2006). Running trials are taken to
reach the process's own prediction, so that several workers try different settings (the "kriging believer" of
Ginsbourger et al. 2010).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalChoiceType,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

CANDIDATES = 2000  # settings of which the most promising is taken
MOST = 200  # trials that the process is fitted to; its cost grows with the cube of their number
Array = NDArray[np.float64]
Setting = dict[str, CategoricalChoiceType]


class GaussianProcessSampler(BaseSampler):
    """Sampler that chooses the setting with the largest expected improvement over the finished trials.

    Until `startup_trials` trials have finished, settings are drawn at random.
    """

    def __init__(self, startup_trials: int, seed: int) -> None:
        self.startup_trials = startup_trials
        self.random = np.random.default_rng(seed)
        self.independent = RandomSampler(seed=seed)

    def reseed_rng(self) -> None:  # noqa: D102
        self.random = np.random.default_rng()
        self.independent.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that all finished trials share and that have more than one value."""
        shared = intersection_search_space(study.get_trials(deepcopy=False))
        return {name: kind for name, kind in shared.items() if not kind.single()}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> Setting:
        """Return the most promising of many settings, or an empty one while there are too few trials to learn from."""
        finished = _finished(study)
        if len(finished) < self.startup_trials or not search_space:
            return {}
        seen = np.array([_row(other.params, search_space) for other in finished])
        scores = self._scores(study, finished)
        running = [
            _row(other.params, search_space)
            for other in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if other.number != trial.number and search_space.keys() <= other.params.keys()
        ]
        candidates = self._candidates(search_space, finished[int(scores.argmax())])
        rows = np.array([_row(candidate, search_space) for candidate in candidates])
        chosen = _expected_improvement(seen, scores, np.array(running), rows).argmax()
        return candidates[int(chosen)]

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> CategoricalChoiceType:
        """Return a random value."""
        value: CategoricalChoiceType = self.independent.sample_independent(study, trial, param_name, param_distribution)
        return value

    def _scores(self, study: Study, trials: Sequence[FrozenTrial]) -> Array:
        """Return a score per trial, the higher the better, with mean 0 and deviation 1; shape (trials,).

        A pruned trial gets the score of the worst complete one: its own accuracy, after fewer epochs, is not
        comparable.
        """
        signs = np.array([1 if way == StudyDirection.MAXIMIZE else -1 for way in study.directions])
        nothing = [np.nan] * len(signs)
        values = [trial.values if trial.state == TrialState.COMPLETE else nothing for trial in trials]
        table = signs * np.array(values, dtype=float)  # (trials, objectives)
        worst = np.nanmin(table, axis=0)
        table = np.where(np.isnan(table), worst, table)
        spread = table.max(axis=0) - worst
        table = (table - worst) / np.where(spread > 0, spread, 1)
        if len(signs) > 1:
            weighted = table * self.random.dirichlet(np.ones(len(signs)))
            scores = weighted.min(axis=1) + 0.05 * weighted.sum(axis=1)  # ParEGO's augmented Chebyshev function
        else:
            scores = table[:, 0]
        scaled: Array = (scores - scores.mean()) / (scores.std() or 1.0)
        return scaled

    def _candidates(self, search_space: Mapping[str, BaseDistribution], best: FrozenTrial) -> list[Setting]:
        """Return CANDIDATES settings, half of them near the best trial and half of them anywhere."""
        units = self.random.random((CANDIDATES, len(search_space)))
        center = [_to_unit(best.params[name], kind) for name, kind in search_space.items()]
        near = np.clip(center + self.random.normal(0, 0.1, (CANDIDATES // 2, len(center))), 0, 1 - 1e-9)
        kept = self.random.random(near.shape) < 0.5
        units[: len(near)] = np.where(kept, np.clip(center, 0, 1 - 1e-9), near)
        kinds = search_space.items()
        return [{name: _from_unit(unit, kind) for unit, (name, kind) in zip(row, kinds, strict=True)} for row in units]


def _finished(study: Study) -> list[FrozenTrial]:
    """Return the newest complete trials, filled up with the newest pruned ones; none if no trial is complete."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))[-MOST:]
    pruned = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,)) if complete else []
    room = MOST - len(complete)
    return complete + pruned[max(0, len(pruned) - room) :]


def _expected_improvement(seen: Array, scores: Array, running: Array, rows: Array) -> Array:
    """Return the expected improvement of each candidate over the best finished trial; shape (candidates,).

    Args:
        seen: settings of the finished trials, (trials, columns).
        scores: their scores, (trials,).
        running: settings of the running trials, (running, columns), or empty.
        rows: settings of the candidates, (candidates, columns).
    """
    lengths = np.full(seen.shape[1], 0.5)
    kernel = ConstantKernel(1.0, (0.05, 20)) * Matern(lengths, (0.05, 20), nu=2.5) + WhiteKernel(0.1, (1e-4, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its limit: the parameter does not matter
        process = GaussianProcessRegressor(kernel, random_state=0).fit(seen, scores)
        if len(running):
            predicted = process.predict(running)
            process = GaussianProcessRegressor(process.kernel_, optimizer=None)
            process.fit(np.concatenate([seen, running]), np.concatenate([scores, predicted]))
    mean, deviation = process.predict(rows, return_std=True)
    # without the noise of a single measurement, which would make settings seen before look unknown
    deviation = np.sqrt(np.maximum(deviation**2 - process.kernel_.k2.noise_level, 1e-12))
    gain = mean - process.predict(seen).max()
    improvement: Array = gain * norm.cdf(gain / deviation) + deviation * norm.pdf(gain / deviation)
    tried = np.concatenate([seen, running]) if len(running) else seen
    again = (np.abs(rows[:, None] - tried[None]).max(axis=2) < 1e-9).any(axis=1)
    improvement[again] = -np.inf  # a second trial of a setting teaches little
    return improvement


def _row(params: Mapping[str, CategoricalChoiceType], search_space: Mapping[str, BaseDistribution]) -> list[float]:
    """Return a setting as the process's input: 0…1 for each numeric parameter, and 0 or 1 for each possible choice."""
    row: list[float] = []
    for name, kind in search_space.items():
        if isinstance(kind, CategoricalDistribution):
            row += [float(params[name] == choice) for choice in kind.choices]
        else:
            row.append(_to_unit(params[name], kind))
    return row


def _limits(kind: FloatDistribution | IntDistribution) -> tuple[float, float]:
    """Return the parameter's values at 0 and 1 of the unit interval, in which each step gets an equal part."""
    half = (kind.step or 0) / 2 if not kind.log else 0.5 if isinstance(kind, IntDistribution) else 0
    low, high = kind.low - half, kind.high + half
    return (float(np.log(low)), float(np.log(high))) if kind.log else (low, high)


def _to_unit(value: CategoricalChoiceType, kind: BaseDistribution) -> float:
    """Return the position of a value in the unit interval."""
    if isinstance(kind, CategoricalDistribution):
        return (kind.choices.index(value) + 0.5) / len(kind.choices)
    assert isinstance(kind, FloatDistribution | IntDistribution)
    assert isinstance(value, int | float)
    low, high = _limits(kind)
    return ((float(np.log(value)) if kind.log else float(value)) - low) / (high - low)


def _from_unit(unit: float, kind: BaseDistribution) -> CategoricalChoiceType:
    """Return the value at a position in the unit interval."""
    if isinstance(kind, CategoricalDistribution):
        return kind.choices[int(unit * len(kind.choices))]
    assert isinstance(kind, FloatDistribution | IntDistribution)
    low, high = _limits(kind)
    value = low + unit * (high - low)
    value = float(np.exp(value)) if kind.log else value
    if kind.step and not kind.log:
        value = kind.low + round((value - kind.low) / kind.step) * kind.step
    value = min(max(value, kind.low), kind.high)
    return round(value) if isinstance(kind, IntDistribution) else value
