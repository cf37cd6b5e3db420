"""A Gaussian process as Optuna sampler, on scikit-learn: Optuna's own needs PyTorch, a gigabyte for one option.

Expected improvement (Jones et al. 1998) of a Matérn 5/2 process with a length per parameter; several objectives become
one by a random weighting in each trial (ParEGO, Knowles 2006); trials that still run stand at the process's own guess,
so that several workers spread (the "kriging believer" of Ginsbourger et al. 2010).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import StudyDirection
from optuna.trial import TrialState

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

CANDIDATES = 2000  # settings of which the most promising is taken
MOST = 200  # trials that the process is fitted to; its cost grows with their cube
Row = NDArray[np.float64]


class GaussianProcessSampler(BaseSampler):
    """Chooses where a Gaussian process over the finished trials expects the largest improvement.

    Args:
        startup_trials: finished trials before which settings are random.
        seed: of all that is random here.
    """

    def __init__(self, startup_trials: int, seed: int) -> None:
        self.startup_trials = startup_trials
        self.random = np.random.default_rng(seed)
        self.independent = RandomSampler(seed=seed)

    def reseed_rng(self) -> None:  # noqa: D102
        self.random = np.random.default_rng()
        self.independent.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that all finished trials share; one that has a single value is left out."""
        shared = intersection_search_space(study.get_trials(deepcopy=False))
        return {name: kind for name, kind in shared.items() if not kind.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The most promising of many settings; none while there are too few trials to learn from."""
        known = _finished(study)
        if len(known) < self.startup_trials or not search_space:
            return {}
        places = np.array([_place(one.params, search_space) for one in known])
        worth = self._worth(study, known)
        running = [
            _place(one.params, search_space)
            for one in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if one.number != trial.number and search_space.keys() <= one.params.keys()
        ]
        candidates = self._candidates(search_space, known[int(worth.argmax())])
        rows = np.array([_place(candidate, search_space) for candidate in candidates])
        chosen = _expected_improvement(places, worth, np.array(running), rows).argmax()
        return candidates[int(chosen)]

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """At random."""
        return self.independent.sample_independent(study, trial, param_name, param_distribution)

    def _worth(self, study: Study, trials: Sequence[FrozenTrial]) -> Row:
        """One number per trial, (N,), the higher the better, of mean 0 and deviation 1.

        A pruned trial stands at the worst complete one's: what it reached before it was stopped is no result.
        """
        signs = np.array([1 if way == StudyDirection.MAXIMIZE else -1 for way in study.directions])
        nothing = [np.nan] * len(signs)
        complete = [one.values if one.state == TrialState.COMPLETE else nothing for one in trials]
        table = signs * np.array(complete, dtype=float)  # (N, objectives)
        worst = np.nanmin(table, axis=0)
        table = np.where(np.isnan(table), worst, table)
        spread = table.max(axis=0) - worst
        table = (table - worst) / np.where(spread > 0, spread, 1)
        if len(signs) > 1:
            weighted = table * self.random.dirichlet(np.ones(len(signs)))
            worth = weighted.min(axis=1) + 0.05 * weighted.sum(axis=1)  # ParEGO's augmented Chebyshev function
        else:
            worth = table[:, 0]
        scaled: Row = (worth - worth.mean()) / (worth.std() or 1.0)
        return scaled

    def _candidates(self, search_space: Mapping[str, BaseDistribution], best: FrozenTrial) -> list[dict[str, Any]]:
        """Half of them anywhere, half of them near the best trial."""
        units = self.random.random((CANDIDATES, len(search_space)))
        here = [_unit(best.params[name], kind) for name, kind in search_space.items()]
        near = np.clip(here + self.random.normal(0, 0.1, (CANDIDATES // 2, len(here))), 0, 1 - 1e-9)
        stays = self.random.random(near.shape) < 0.5
        units[: len(near)] = np.where(stays, np.clip(here, 0, 1 - 1e-9), near)
        return [{n: _value(u, kind) for u, (n, kind) in zip(row, search_space.items(), strict=True)} for row in units]


def _finished(study: Study) -> list[FrozenTrial]:
    """The latest complete trials and, where there are few, the latest pruned ones; none unless one is complete."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))[-MOST:]
    pruned = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,)) if complete else []
    room = MOST - len(complete)
    return complete + pruned[max(0, len(pruned) - room) :]


def _expected_improvement(places: Row, worth: Row, running: Row, rows: Row) -> Row:
    """Of each row, (candidates,), over the best of `worth`."""
    from scipy.stats import norm
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    lengths = np.full(places.shape[1], 0.5)
    kernel = ConstantKernel(1.0, (0.05, 20)) * Matern(lengths, (0.05, 20), nu=2.5) + WhiteKernel(0.1, (1e-4, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its limit: the parameter does not matter
        process = GaussianProcessRegressor(kernel, random_state=0).fit(places, worth)
        if len(running):
            guessed = process.predict(running)
            process = GaussianProcessRegressor(process.kernel_, optimizer=None)
            process.fit(np.concatenate([places, running]), np.concatenate([worth, guessed]))
    mean, deviation = process.predict(rows, return_std=True)
    # of the function, not of a noisy look at it: with the noise, places seen before would look unknown
    deviation = np.sqrt(np.maximum(deviation**2 - process.kernel_.k2.noise_level, 1e-12))
    gain = mean - process.predict(places).max()
    improvement: Row = gain * norm.cdf(gain / deviation) + deviation * norm.pdf(gain / deviation)
    known = np.concatenate([places, running]) if len(running) else places
    seen = (np.abs(rows[:, None] - known[None]).max(axis=2) < 1e-9).any(axis=1)  # where a second look teaches little
    improvement[seen] = -np.inf
    return improvement


def _place(params: Mapping[str, Any], search_space: Mapping[str, BaseDistribution]) -> list[float]:
    """A setting as the process sees it: numbers in 0…1, a choice as one number per possibility."""
    row: list[float] = []
    for name, kind in search_space.items():
        if isinstance(kind, CategoricalDistribution):
            row += [float(params[name] == choice) for choice in kind.choices]
        else:
            row.append(_unit(params[name], kind))
    return row


def _limits(kind: FloatDistribution | IntDistribution) -> tuple[float, float]:
    """Of the unit interval, on the parameter's own scale; whole steps lie in the middle of equal parts."""
    half = (kind.step or 0) / 2 if not kind.log else 0.5 if isinstance(kind, IntDistribution) else 0
    low, high = kind.low - half, kind.high + half
    return (float(np.log(low)), float(np.log(high))) if kind.log else (low, high)


def _unit(value: Any, kind: BaseDistribution) -> float:
    if isinstance(kind, CategoricalDistribution):
        return (kind.choices.index(value) + 0.5) / len(kind.choices)
    assert isinstance(kind, FloatDistribution | IntDistribution)
    low, high = _limits(kind)
    return ((float(np.log(value)) if kind.log else float(value)) - low) / (high - low)


def _value(unit: float, kind: BaseDistribution) -> Any:
    """What stands at this place of 0…1."""
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
