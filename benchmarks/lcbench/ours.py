"""The platform's search: its driver, study, sampler, pruner and stop rule, in virtual time."""

from __future__ import annotations

import numpy as np
import optuna

from benchmarks.lcbench.ledger import Problem
from benchmarks.lcbench.surrogate import EPOCHS, SPACE
from benchmarks.lcbench.virtual import CARRIERS, EPOCH_SECONDS, VirtualPool, settings_of, untracked
from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.callback import SearchCallback
from fmnist_exp.tuning.driver import Driver
from fmnist_exp.tuning.session import Search
from fmnist_exp.tuning.space import SearchSpace
from fmnist_exp.tuning.workers import trial


def run(problem: Problem, fields: dict[str, str], workers: int = 1) -> None:
    """Search until the budget is spent.

    Args:
        problem: the curves to search.
        fields: fields of `search:` that differ from the schema's defaults.
        workers: number of trials at once.
    """
    pool = VirtualPool(lambda task: problem.curve(settings_of(task)), problem.ledger, workers)
    search(experiment(problem, fields), pool, problem.ledger.budget)


def search(config: ExperimentConfig, pool: VirtualPool, budget: int) -> None:
    """Run the driver in virtual time until it has spent a budget of epochs."""
    study = studies.open_study(config, "lcbench", optuna.storages.InMemoryStorage())
    # half an epoch before the end, so that the driver stops what runs when the last epoch of the budget has ended
    deadline = (budget // pool.size - 0.5) * EPOCH_SECONDS
    with untracked() as parent:
        opened = Search(SearchSpace(config), no_images(), study, parent, deadline, clock=pool.clock)
        Driver(opened, pool, trial.train, SearchCallback(), None).work()


def experiment(problem: Problem, fields: dict[str, str]) -> ExperimentConfig:
    """Return the experiment whose fields carry LCBench's parameters; its own setting is the problem's first one."""
    space = {
        CARRIERS[name]: {"low": known.low, "high": known.high, **({"log": True} if known.log else {})}
        for name, known in SPACE.items()
    }
    own = {CARRIERS[name]: int(v) if SPACE[name].whole else v for name, v in problem.first.items()}
    basis = {"name": "lcbench", "seed": problem.seed, "training.epochs": EPOCHS, "training.optimizer": "sgd"}
    limits = {"search.space": space, "search.n_trials": 100_000, "search.timeout": 1000}
    searched = {f"search.{name}": value for name, value in fields.items()}
    return files.override(ExperimentConfig(), {**basis, **own, **limits, **searched})


def no_images() -> FashionMNIST:
    """Return a data set without images, since nothing is trained."""
    empty = [
        Split(name, np.zeros((0, 28, 28), np.uint8), np.zeros(0, np.uint8)) for name in ("train", "validation", "test")
    ]
    return FashionMNIST(*empty, source="none")
