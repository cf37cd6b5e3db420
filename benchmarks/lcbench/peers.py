"""The searches that ours is compared with, as far as they need no environment of their own.

A peer trains until `Spent` ends it. Plain Optuna starts every trial anew; ASHA pauses trials and resumes them, so that
no epoch is trained twice.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable

import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, GPSampler, TPESampler

from benchmarks.lcbench.ledger import Problem, Setting, Trial
from benchmarks.lcbench.surrogate import SPACE

FACTOR = 3  # of successive halving in ASHA


def random_search(problem: Problem) -> None:
    """Train random settings, each to the end."""
    generator = np.random.default_rng(problem.seed + 1)  # the first setting came from the seed itself
    setting = problem.first
    while True:
        problem.start(setting).train(problem.epochs)
        setting = problem.draw(generator)


def asha(problem: Problem) -> None:
    """Asynchronous successive halving (Li et al. 2020) with one worker, random settings and resumed trials."""
    generator = np.random.default_rng(problem.seed + 1)
    rungs = [*(rung for rung in (1, 3, 9, 27) if rung < problem.epochs), problem.epochs]
    reached: list[list[tuple[float, Trial]]] = [[] for _ in rungs]
    promoted: set[int] = set()  # identities of (rung, trial)
    setting: Setting | None = problem.first
    while True:
        chosen = None if setting else _promotable(reached, promoted)
        if chosen is None:
            trial, rung = problem.start(setting or problem.draw(generator)), 0
            setting = None
        else:
            trial, rung = chosen[0], chosen[1] + 1
        reached[rung].append((trial.train(rungs[rung]), trial))


def _promotable(reached: list[list[tuple[float, Trial]]], promoted: set[int]) -> tuple[Trial, int] | None:
    """Return a trial among the best third of its rung, the highest rung first, that was not promoted, and its rung."""
    for rung in reversed(range(len(reached) - 1)):
        best = sorted(reached[rung], key=lambda pair: -pair[0])[: len(reached[rung]) // FACTOR]
        for _, trial in best:
            if (key := hash((rung, id(trial)))) not in promoted:
                promoted.add(key)
                return trial, rung
    return None


def plain_optuna(problem: Problem, sampler: Callable[[int], BaseSampler], pruner: Callable[[int], BasePruner]) -> None:
    """Run Optuna with its own defaults, except for the seed and the first trial.

    The sampler is made for a seed, and the pruner for the epochs of a full trial.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        direction="maximize",
        sampler=sampler(problem.seed),
        pruner=pruner(problem.epochs),
        study_name=f"seed {problem.seed}",  # Hyperband draws a trial's bracket from the name, by default a random one
    )
    study.enqueue_trial(dict(problem.first))

    def objective(trial: optuna.Trial) -> float:
        running = problem.start((problem.suggest or _suggest)(trial))
        accuracies = []
        for epoch in range(1, problem.epochs + 1):
            accuracies.append(running.train(epoch))
            trial.report(accuracies[-1], epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return max(accuracies)

    study.optimize(objective)


def _suggest(trial: optuna.Trial) -> dict[str, float]:
    setting: dict[str, float] = {}
    for name, known in SPACE.items():
        if known.whole:
            setting[name] = trial.suggest_int(name, int(known.low), int(known.high), log=known.log)
        else:
            setting[name] = trial.suggest_float(name, known.low, known.high, log=known.log)
    return setting


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(seed=seed)


def _gp(seed: int) -> BaseSampler:
    return GPSampler(seed=seed)


def _nothing(epochs: int) -> BasePruner:
    return NopPruner()


def _median(epochs: int) -> BasePruner:
    return MedianPruner()


def _hyperband(epochs: int) -> BasePruner:
    return HyperbandPruner(1, epochs, 3)


PEERS: dict[str, Callable[[Problem], None]] = {
    "random_search": random_search,
    "asha": asha,
    "optuna_tpe": functools.partial(plain_optuna, sampler=_tpe, pruner=_nothing),
    "optuna_median": functools.partial(plain_optuna, sampler=_tpe, pruner=_median),
    "optuna_hyperband": functools.partial(plain_optuna, sampler=_tpe, pruner=_hyperband),
}
if importlib.util.find_spec("torch"):  # Optuna's process needs PyTorch, gigabytes that the project does not install
    PEERS["optuna_gp"] = functools.partial(plain_optuna, sampler=_gp, pruner=_nothing)
