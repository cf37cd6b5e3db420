"""A Gaussian process as Optuna sampler, on scikit-learn: Optuna's own needs PyTorch, a gigabyte for one option.

It maximises the expected improvement (Jones et al. 1998) of a Matérn 5/2 process with a length scale per parameter.
The process is over the setting and the epoch, as in freeze-thaw optimisation (Swersky et al. 2014), so it learns from
what trials measured before they were pruned.
Several objectives become one by a random weighting in each trial (ParEGO, Knowles 2006). Running trials are taken to
reach the process's own prediction, so that several workers try different settings (the "kriging believer" of
Ginsbourger et al. 2010).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalChoiceType
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from scipy import optimize
from scipy.spatial.distance import cdist
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Kernel, Matern, WhiteKernel

from fmnist_exp.data.streams import Stream, generator
from fmnist_exp.tuning.record import as_pruned, is_paused
from fmnist_exp.tuning.sampling.encoding import from_unit, row, rows, to_unit

CANDIDATES = 2000  # settings of which the most promising is taken
MOST = 150  # points that the process is fitted to; its cost grows with the cube of their number
THIN = 3  # ratio of two neighbouring epochs of a curve that become points
FIT_STEPS = 15  # of a fit of the length scales
APART = 0.02  # of the range of some parameter: so much a setting differs at least from those that were tried
Array = NDArray[np.float64]
Setting = dict[str, CategoricalChoiceType]


@dataclass(frozen=True)
class Point:
    """A measurement of a trial."""

    trial: FrozenTrial
    time: float  # 1 after the last epoch
    score: float  # the higher the better


class GaussianProcessSampler(BaseSampler):
    """Sampler that chooses the setting with the largest expected improvement over the finished trials.

    Until `startup_trials` trials have finished, settings are drawn at random.
    """

    def __init__(self, startup_trials: int, seed: int) -> None:
        self.startup_trials = startup_trials
        self.random = generator(Stream.SAMPLER, seed)
        self.independent = RandomSampler(seed=seed)
        self.process = Process()

    def reseed_rng(self) -> None:  # noqa: D102
        self.random = np.random.default_rng()
        self.independent.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that all finished and paused trials share and that have more than one value."""
        trials = [as_pruned(trial) for trial in study.get_trials(deepcopy=False)]
        shared = intersection_search_space(trials, include_pruned=True)
        return {name: kind for name, kind in shared.items() if not kind.single()}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> Setting:
        """Return the most promising of many settings, or an empty one while there are too few trials to learn from."""
        points = self._points(study, search_space)
        if len({point.trial.number for point in points}) < self.startup_trials or not search_space:
            return {}
        seen = np.array([[*row(point.trial.params, search_space), point.time] for point in points])
        scores = np.array([point.score for point in points])
        running = [
            [*row(other.params, search_space), 1.0]
            for other in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if other.number != trial.number and search_space.keys() <= other.params.keys() and not is_paused(other)
        ]
        units = self._candidates(search_space, points[int(scores.argmax())].trial)
        candidates = np.column_stack([rows(units, search_space), np.ones(len(units))])
        chosen = units[self.process.expected_improvement(seen, scores, np.array(running), candidates).argmax()]
        return {name: from_unit(unit, kind) for unit, (name, kind) in zip(chosen, search_space.items(), strict=True)}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> CategoricalChoiceType:
        """Return a random value."""
        value: CategoricalChoiceType = self.independent.sample_independent(study, trial, param_name, param_distribution)
        return value

    def _points(self, study: Study, search_space: Mapping[str, BaseDistribution]) -> list[Point]:
        """Return what the trials have measured so far, at most MOST points; the scores have mean 0 and deviation 1.

        With a single objective these are points of the trials' curves. A pruned trial without a curve gets the score of
        the worst complete one. With several objectives each trial is one point.
        """
        finished = _measured(study, search_space)
        signs = np.array([1 if way == StudyDirection.MAXIMIZE else -1 for way in study.directions])
        if len(signs) == 1:
            points = _on_curves(finished, int(signs[0]))
        else:
            points = [
                Point(trial, 1.0, score) for trial, score in zip(finished, self._weighted(finished, signs), strict=True)
            ]
        points = sorted(points, key=lambda point: (point.time, point.trial.number))[-MOST:]
        scores = np.array([point.score for point in points])
        middle, spread = (float(scores.mean()), float(scores.std()) or 1.0) if points else (0.0, 1.0)
        return [Point(point.trial, point.time, (point.score - middle) / spread) for point in points]

    def _weighted(self, trials: Sequence[FrozenTrial], signs: Array) -> Array:
        """Return a score per trial for several objectives, the higher the better; shape (trials,)."""
        nothing = [np.nan] * len(signs)
        values = [trial.values if trial.state == TrialState.COMPLETE else nothing for trial in trials]
        table = signs * np.array(values, dtype=float).reshape(len(trials), len(signs))
        worst = np.nanmin(table, axis=0) if len(trials) else table
        table = np.where(np.isnan(table), worst, table) - worst
        spread = table.max(axis=0, initial=0)
        weighted = table / np.where(spread > 0, spread, 1) * self.random.dirichlet(np.ones(len(signs)))
        scores: Array = weighted.min(axis=1) + 0.05 * weighted.sum(axis=1)  # ParEGO's augmented Chebyshev function
        return scores

    def _candidates(self, search_space: Mapping[str, BaseDistribution], best: FrozenTrial) -> Array:
        """Return CANDIDATES settings, half of them near the best trial and half of them anywhere.

        They are positions in the unit interval, (CANDIDATES, parameters).
        """
        units = self.random.random((CANDIDATES, len(search_space)))
        center = [to_unit(best.params[name], kind) for name, kind in search_space.items()]
        near = np.clip(center + self.random.normal(0, 0.1, (CANDIDATES // 2, len(center))), 0, 1 - 1e-9)
        kept = self.random.random(near.shape) < 0.5
        units[: len(near)] = np.where(kept, np.clip(center, 0, 1 - 1e-9), near)
        return units


def _measured(study: Study, search_space: Mapping[str, BaseDistribution]) -> list[FrozenTrial]:
    """Return the newest complete trials, filled up with others that have a curve; none if there is nothing to learn.

    The others are pruned or paused, or they are running and have trained an epoch.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))[-MOST:]
    pruned = study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    if not complete:  # a value is known of those with a curve only
        pruned = [trial for trial in pruned if trial.intermediate_values]
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    # one that continues a trial of a killed driver has a curve before it has parameters
    running = [trial for trial in running if trial.intermediate_values and search_space.keys() <= trial.params.keys()]
    others = [*pruned, *running]
    room = MOST - len(complete)
    return complete + others[max(0, len(others) - room) :]


def _on_curves(trials: Sequence[FrozenTrial], sign: int) -> list[Point]:
    """Return points of the trials' curves: the last epoch and, if any trial was pruned, every third before it.

    A point has the best value of the epochs until then, as the value of a complete trial is the best one of its curve.
    """
    longest = max((trial.last_step or 0 for trial in trials), default=0)
    complete = [sign * trial.values[0] for trial in trials if trial.state == TrialState.COMPLETE]
    early = len(complete) < len(trials)  # otherwise all can be compared at the end, and one point per trial is better
    points = []
    for trial in trials:
        epoch, ended = trial.last_step or 0, trial.state == TrialState.COMPLETE
        if ended or not epoch:
            points.append(Point(trial, 1.0, sign * trial.values[0] if ended else min(complete, default=0.0)))
            epoch //= THIN
        while early and epoch and epoch >= min(trial.intermediate_values, default=epoch + 1):
            best = max(sign * value for step, value in trial.intermediate_values.items() if step <= epoch)
            points.append(Point(trial, float(np.log1p(epoch) / np.log1p(longest)), best))
            epoch //= THIN
    return points


class Process:
    """The Gaussian process over a setting and the part of the training that is done.

    The last column of its inputs is the time of a measurement: 0 before the training, 1 after all of it, on a
    logarithmic scale. Its length scale is fitted like that of every parameter; so the process learns how much early
    epochs say about the end.
    """

    def __init__(self) -> None:
        self._kernel: Kernel | None = None  # with the length scales of the last fit
        self._fitted_to = 0  # points

    def expected_improvement(self, seen: Array, scores: Array, running: Array, rows: Array) -> Array:
        """Return the expected improvement of each candidate over the best finished trial; shape (candidates,).

        Args:
            seen: settings of the finished trials and times, (points, columns).
            scores: their scores, (points,).
            running: settings of the running trials at the end of their training, (running, columns), or empty.
            rows: settings of the candidates at the end of their training, (candidates, columns).
        """
        process = self._fit(seen, scores)
        if len(running):
            predicted = process.predict(running)
            process = GaussianProcessRegressor(process.kernel_, optimizer=None)
            process.fit(np.concatenate([seen, running]), np.concatenate([scores, predicted]))
        mean, deviation = process.predict(rows, return_std=True)
        # without the noise of a single measurement, which would make settings seen before look unknown
        deviation = np.sqrt(np.maximum(deviation**2 - process.kernel_.k2.noise_level, 1e-12))
        ends = np.unique(np.concatenate([seen[:, :-1], np.ones((len(seen), 1))], axis=1), axis=0)
        gain = mean - process.predict(ends).max()
        improvement: Array = gain * norm.cdf(gain / deviation) + deviation * norm.pdf(gain / deviation)
        tried = np.concatenate([ends, running]) if len(running) else ends
        again = (cdist(rows, tried, "chebyshev") < APART).any(axis=1)
        improvement[again] = -np.inf  # a second trial of a setting teaches little
        return improvement

    def _fit(self, seen: Array, scores: Array) -> GaussianProcessRegressor:
        """Fit the process. The length scales are fitted again when there are a tenth more points than last time."""
        lengths, limits = np.full(seen.shape[1], 0.5), [(0.05, 20.0)] * seen.shape[1]
        kernel = ConstantKernel(1.0, (0.05, 20)) * Matern(lengths, limits, nu=2.5) + WhiteKernel(0.1, (1e-4, 1))
        if self._kernel is not None and len(self._kernel.bounds) == len(kernel.bounds):
            kernel = self._kernel
        again = kernel is not self._kernel or len(seen) >= 1.1 * self._fitted_to
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its limit: the parameter does not matter
            process = GaussianProcessRegressor(kernel, optimizer=_climb if again else None).fit(seen, scores)
        if again:
            self._kernel, self._fitted_to = process.kernel_, len(seen)
        return process


def _climb(objective: Callable[..., object], start: Array, bounds: Array) -> tuple[Array, float]:
    """Maximise the likelihood for a few steps; the next fit goes on from there."""
    found = optimize.minimize(
        objective, start, method="L-BFGS-B", jac=True, bounds=bounds, options={"maxiter": FIT_STEPS}
    )
    return found.x, found.fun
