"""SMAC3 and DEHB, which run in an environment of their own: `make lcbench` creates it from requirements-lcbench.txt.

    .venv-lcbench/bin/python -m benchmarks.lcbench.others CONTESTANT TASK SEED EPOCHS FIRST_SETTING

prints the account of one search as JSON. Both pay for the epochs of a setting once, however often they evaluate it.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.lcbench.ledger import Ledger, Problem, Spent, Trial
from benchmarks.lcbench.surrogate import EPOCHS, SPACE, Surrogate

PROJECT = Path(__file__).resolve().parents[2]
PYTHON = PROJECT / ".venv-lcbench" / "bin" / "python"


def smac(problem: Problem) -> None:
    """Run SMAC3's multi-fidelity facade: a random forest with Hyperband (Lindauer et al. 2022)."""
    from smac import MultiFidelityFacade, Scenario
    from smac.runhistory.dataclasses import TrialValue

    space = _space(problem.seed)
    evaluate = _evaluations(problem)
    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(
            space,
            deterministic=True,
            min_budget=1,
            max_budget=EPOCHS,
            n_trials=1_000_000,
            seed=problem.seed,
            output_directory=Path(folder),
        )
        first = MultiFidelityFacade.get_initial_design(
            scenario, n_configs=10, additional_configs=[_configuration(space, problem.first)]
        )
        search = MultiFidelityFacade(
            scenario,
            lambda config, seed, budget: 1 - evaluate(dict(config), budget),
            initial_design=first,
            logging_level=False,
            overwrite=True,
        )
        evaluate(problem.first, EPOCHS)  # as all contestants begin; SMAC itself would pay for it later
        while True:
            info = search.ask()
            cost = 1 - evaluate(dict(info.config), info.budget)
            search.tell(info, TrialValue(cost=cost))


def dehb(problem: Problem) -> None:
    """Run DEHB: differential evolution with Hyperband (Awad et al. 2021)."""
    import loguru
    from dehb import DEHB

    loguru.logger.remove()
    evaluate = _evaluations(problem)
    evaluate(problem.first, EPOCHS)
    with tempfile.TemporaryDirectory() as folder:
        search = DEHB(
            cs=_space(problem.seed),
            min_fidelity=1,
            max_fidelity=EPOCHS,
            eta=3,
            n_workers=1,
            seed=problem.seed,
            output_path=folder,
            save_freq="end",
            log_level="ERROR",
        )
        while True:
            job = search.ask()
            cost = 1 - evaluate(dict(job["config"]), job["fidelity"])
            search.tell(job, {"fitness": cost, "cost": float(job["fidelity"])})


def _evaluations(problem: Problem) -> Callable[[Mapping[str, float], float], float]:
    """Return a function that trains a setting to a number of epochs and returns the accuracy; trials resume."""
    trials: dict[tuple[float, ...], Trial] = {}

    def evaluate(setting: Mapping[str, float], epochs: float) -> float:
        key = tuple(float(setting[name]) for name in SPACE)
        if key not in trials:
            trials[key] = problem.start({name: float(setting[name]) for name in SPACE})
        return trials[key].train(max(1, round(epochs)))

    return evaluate


def _space(seed: int) -> Any:
    from ConfigSpace import ConfigurationSpace, Float, Integer

    parameters = [
        Integer(name, (int(known.low), int(known.high)), log=known.log)
        if known.whole
        else Float(name, (known.low, known.high), log=known.log)
        for name, known in SPACE.items()
    ]
    space = ConfigurationSpace(seed=seed)
    space.add(*parameters)
    return space


def _configuration(space: Any, setting: Mapping[str, float]) -> Any:
    from ConfigSpace import Configuration

    return Configuration(space, {n: int(v) if SPACE[n].whole else v for n, v in setting.items()})


SEARCHES = {"smac": smac, "dehb": dehb}


def _elsewhere(problem: Problem, name: str) -> None:
    """Run a search in the other environment, and take over its account."""
    arguments = [name, problem.task, str(problem.seed), str(problem.ledger.budget), json.dumps(dict(problem.first))]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "LCBENCH": str(problem.folder)}
    command = [str(PYTHON), "-W", "ignore", "-m", "benchmarks.lcbench.others", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed: {done.stderr[-2000:]}")
    account = json.loads(done.stdout.splitlines()[-1])
    ledger = problem.ledger
    ledger.epochs, ledger.trials = account["epochs"], account["trials"]
    ledger.best = [(when, accuracy) for when, accuracy in account["best"]]


OTHERS: dict[str, Callable[[Problem], None]] = {name: functools.partial(_elsewhere, name=name) for name in SEARCHES}


def installed() -> list[str]:
    """Return the contestants of the other environment, or none if it does not exist."""
    return list(OTHERS) if PYTHON.exists() else []


@functools.cache
def version(name: str) -> str:
    """Return the version of a contestant's package. Raises SystemExit without its environment."""
    if not PYTHON.exists():
        raise SystemExit(f"{name} needs an environment of its own; `make lcbench` creates it")
    code = f"import importlib.metadata; print(importlib.metadata.version({name!r}))"
    return subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Run one search in this environment and print its account."""
    name, task, seed, budget, first = sys.argv[1:]
    ledger = Ledger(int(budget))
    with suppress(Spent):
        SEARCHES[name](Problem(Surrogate(task).curve, ledger, json.loads(first), int(seed)))
    print(json.dumps({"epochs": ledger.epochs, "trials": ledger.trials, "best": ledger.best}))


if __name__ == "__main__":
    main()
