"""Compare searches on LCBench's learning curves, as a surrogate predicts them, in virtual time.

A full trial is 51 epochs; the budget is a number of full trials. The contestants are this platform's driver with its
study, sampler, pruner and stop rule (`fmnist_exp`; `fmnist_exp:sampler=gp,pruner=none` changes fields of `search:`) and
the searches of peers.py and others.py, which run in an environment that `make lcbench` creates. All begin with the same
random setting. Regret is in percent of the range between the worst and the best of 4,000 random settings of the task.

    python -m benchmarks.lcbench                             # 3 seeds of the 17 tasks to develop on
    python -m benchmarks.lcbench --contestants fmnist_exp fmnist_exp:sampler=gp --seeds 10 --minutes 5
    python -m benchmarks.lcbench --tasks report --seeds 30 --folder docs/lcbench  # once, after the last decision

Every finished search is kept in results.jsonl, so that the command can be stopped and repeated; docs/lcbench is
committed, so that another machine can continue. A search of ours whose code has changed runs again.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.metadata
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmarks.lcbench import others, ours, report, results, surrogate
from benchmarks.lcbench.ledger import Ledger, Problem, Spent
from benchmarks.lcbench.peers import PEERS
from benchmarks.lcbench.results import Result
from benchmarks.lcbench.surrogate import EPOCHS, MissingSurrogate, Surrogate
from benchmarks.processes import PROJECT

OURS = "fmnist_exp"
OUR_CODE = (
    "sampling/*.py",
    "agenda.py",
    "driver.py",
    "halving.py",
    "objectives.py",
    "plan.py",
    "record.py",
    "space.py",
    "study.py",
)  # what a search depends on


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lcbench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ", ".join([OURS, *PEERS, *others.OTHERS])
    parser.add_argument("--contestants", nargs="+", default=[OURS, *PEERS, *others.installed()], help=known)
    parser.add_argument("--tasks", nargs="+", default=["develop"], help="develop, report, or numbers of tasks")
    parser.add_argument("--seeds", type=int, default=3, help="number of searches of each contestant on each task")
    parser.add_argument("--budget", type=float, default=20, help="budget of a search, in full trials")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="time after which no search is started")
    parser.add_argument("--surrogate", type=Path, default=surrogate.FOLDER, help="folder with LCBench's model.onnx")
    parser.add_argument("--folder", type=Path, default=PROJECT / "lcbench", help="folder of the results")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the searches that are missing, and print the table."""
    given = parser().parse_args(arguments)
    for name in given.contestants:
        if name.partition(":")[0] != OURS and name not in {**PEERS, **others.OTHERS}:
            parser().error(f"no contestant {name!r}; there are {', '.join([OURS, *PEERS, *others.OTHERS])}")
    try:
        chosen = [task for kind in given.tasks for task in surrogate.tasks(kind, given.surrogate)]
    except MissingSurrogate as error:
        parser().error(str(error))
    file, budget = given.folder / "results.jsonl", round(given.budget * EPOCHS)
    wanted = [(n, version(n), t, s, budget) for s in range(given.seeds) for t in chosen for n in given.contestants]
    deadline = time.monotonic() + 60 * given.minutes
    done = results.read(file)
    for count, key in enumerate(missing := [key for key in wanted if key not in done], start=1):
        if time.monotonic() > deadline:
            break
        result = search(key[0], key[2], key[3], budget, given.surrogate)
        results.append(file, result)
        done[result.key] = result
        if sys.stderr.isatty():
            print(f"\r{count} of {len(missing)} searches", end="", file=sys.stderr, flush=True)
    have = [done[key] for key in wanted if key in done]
    text = report.page(have, given.contestants, budget)
    print("\n" + text)
    (given.folder / "table.md").write_text(text, encoding="utf-8")
    report.curves(have, given.contestants, budget).savefig(given.folder / "regret.png")


@functools.cache
def version(contestant: str) -> str:
    """Return the version of a contestant's code: a digest of ours, the package's version of others."""
    if contestant.partition(":")[0] == OURS:
        content = hashlib.sha256()
        for pattern in OUR_CODE:
            for path in sorted((PROJECT / "fmnist_exp" / "tuning").glob(pattern)):
                content.update(path.read_bytes())
        return content.hexdigest()[:12]
    if contestant in others.OTHERS:
        return others.version(contestant)
    return importlib.metadata.version("optuna") if contestant.startswith("optuna") else "1"


def search(contestant: str, task: str, seed: int, budget: int, folder: Path) -> Result:
    """Run one search and return its result."""
    known, ledger = Surrogate(task, folder), Ledger(budget)
    first = surrogate.random_setting(np.random.default_rng(seed))
    begin = time.process_time()
    problem = Problem(known.curve, ledger, first, seed, task, folder)
    name, _, changes = contestant.partition(":")
    if name == OURS:
        ours.run(problem, dict(pair.split("=") for pair in changes.split(",") if pair))
    else:
        run = PEERS.get(name) or others.OTHERS[name]
        with suppress(Spent):
            run(problem)
    seconds = round(time.process_time() - begin, 3)
    best, (worst, top) = results.thinned(ledger.best, budget), known.scale()
    return Result(contestant, version(contestant), task, seed, budget, ledger.trials, seconds, worst, top, best)


if __name__ == "__main__":
    main()
