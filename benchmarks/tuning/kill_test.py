"""Kill the workers and the driver of a search again and again, and check that every trial finishes exactly once.

The benchmark runs the command `fmnist-exp tune --experiment tune_mlp` with short trials in a folder of its own. At
random times it sends SIGKILL to a worker process or to the driver; a killed driver is restarted with the same command.
After the given number of kills the search runs to its end, and the study and the tracking store are checked.

    python -m benchmarks.tuning.kill_test           # 40 trials, 30 kills: about 15 minutes on 2 idle cores
    python -m benchmarks.tuning.kill_test --trials 4 --kills 2
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import optuna
import psutil

from benchmarks import arguments, processes

STUDY = "kill-test"
SHORT = {"training.epochs": 2, "training.batch_size": 2048, "search.timeout": 600}


class Search:
    """The command, which is restarted whenever its driver was killed."""

    def __init__(self, folder: Path, trials: int, workers: int) -> None:
        self.folder = folder
        self.storage = f"sqlite:///{folder}/studies.db"
        options = {"experiment": "tune_mlp", "study": STUDY, "n_trials": trials, "workers": workers}
        options |= {"storage": self.storage, **SHORT}
        self.command = processes.python("fmnist_exp", "tune", *processes.options(options))
        self.environment = processes.environment(folder)
        self.starts = 0
        self.start()

    def start(self) -> None:
        """Start the driver."""
        self.starts += 1
        with (self.folder / "log").open("a") as log:
            print(f"--- start {self.starts}", file=log, flush=True)
            self.driver = subprocess.Popen(
                self.command, cwd=self.folder, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def workers(self) -> list[psutil.Process]:
        """Return the processes that run trials, recognised by how multiprocessing starts them for Dask."""
        try:
            children = psutil.Process(self.driver.pid).children(recursive=True)
            return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        except psutil.Error:
            return []

    def kill(self, chance_of_driver: float) -> str:
        """Kill the driver or a worker; return which, or an empty string if there was none."""
        if random.random() < chance_of_driver:
            self.driver.kill()
            self.driver.wait()
            self.start()
            return "driver"
        workers = self.workers()
        if not workers:
            return ""
        try:
            random.choice(workers).kill()
        except psutil.NoSuchProcess:
            return ""
        return "worker"


def audit(search: Search, trials: int) -> list[tuple[str, object, object]]:
    """Return rows: what is counted, the count, and the expected count."""
    import mlflow

    study = optuna.load_study(study_name=STUDY, storage=search.storage)
    cut = set(study.user_attrs.get("cut_off", []))
    states = collections.Counter(trial.state.name for trial in study.trials if trial.number not in cut)
    counted = [trial for trial in study.trials if trial.number not in cut and trial.state.is_finished()]
    client = mlflow.MlflowClient(search.environment["MLFLOW_TRACKING_URI"])
    runs = client.search_runs(["0"], "tags.`fmnist.kind` = 'trial'", max_results=10_000)
    runs_of = collections.Counter(run.data.tags["fmnist.trial"] for run in runs)
    ended = {run.info.run_id: run.info.status for run in runs}
    expected = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
    agreeing = [trial for trial in counted if ended.get(trial.user_attrs["run_id"]) == expected[trial.state.name]]
    every = client.search_runs(["0"], "", run_view_type=mlflow.entities.ViewType.ALL, max_results=10_000)
    models = [trial for trial in counted if "model_id" in trial.user_attrs and trial.state.name != "FAIL"]
    return [
        ("trials finished", len(counted), trials),
        ("… with different settings", len({str(sorted(trial.params.items())) for trial in counted}), trials),
        ("… with the state of their run", len(agreeing), trials),
        ("… with a model", len(models), trials - states["FAIL"]),
        ("trials with more than one run", sum(count > 1 for count in runs_of.values()), 0),
        ("RUNNING in Optuna", states["RUNNING"], 0),
        ("RUNNING in MLflow, including deleted runs", sum(run.info.status == "RUNNING" for run in every), 0),
    ]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    return arguments.parser(
        __doc__,
        trials=(40, "number of trials of the search"),
        kills=(30, "number of kills"),
        workers=(2, "number of workers"),
        pause=(12.0, "mean number of seconds between two kills"),
        drivers=(0.3, "probability that a kill hits the driver"),
        seed=(0, "random seed of the kills"),
    )


def main() -> int:
    """Run the search, print the counts and return the exit code."""
    given = parser().parse_args()
    random.seed(given.seed)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kills: collections.Counter[str] = collections.Counter()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kill-test-") as folder:
        search = Search(Path(folder), given.trials, given.workers)
        try:
            while kills.total() < given.kills and search.driver.poll() is None:
                time.sleep(random.uniform(0.2, 2) * given.pause)
                if search.driver.poll() is None and (killed := search.kill(given.drivers)):
                    kills[killed] += 1
            code = search.driver.wait()
        finally:
            if search.driver.poll() is None:
                os.killpg(search.driver.pid, signal.SIGKILL)
        if code:
            print((Path(folder) / "log").read_text()[-5000:])
        rows = [("exit code of the command", code, 0), *audit(search, given.trials)]
    print(f"\n{given.trials} trials, {kills.total()} kills ({dict(kills)}), {time.monotonic() - begin:.0f} s\n")
    print(f"{'':<38}{'found':>8}{'expected':>10}")
    for name, found, expected in rows:
        print(f"{name:<38}{found:>8}{expected:>10}{'' if found == expected else '   <<<'}")
    enough = kills.total() >= given.kills
    if not enough:
        print(f"\nthe search ended after {kills.total()} kills: lower --pause or raise --trials")
    return 0 if enough and all(found == expected for _, found, expected in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
