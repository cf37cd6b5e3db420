"""Sixteen processes make first use of one folder at the same moment, and then write one SQLite store."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
import requests
from mlflow import MlflowClient
from support import services
from support.searches import STORAGE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")
PROCESSES, EPOCHS = 16, 10
SCRIPT = f"""
import multiprocessing, sys
from fmnist_exp.tracking import run as runs, store
from fmnist_exp.tuning import study
from fmnist_exp.tuning.workers import study_lock
from support.searches import STORAGE, configure

def work(start, used, name):
    try:
        start.wait()
        with runs.closing(runs.start_run(store.connect(), "tune", name, name)) as run:
            with study_lock.hold(STORAGE, name):
                study.open_study(configure(), name, STORAGE)
            used.wait()
            write(run, name)
    except BaseException:
        used.abort()
        raise

def write(run, name):
    run.log_params({{"writer": name}})
    for epoch in range(1, {EPOCHS} + 1):
        run.log_metrics({{"loss": 1 / epoch, "val_accuracy": epoch / {EPOCHS}}}, step=epoch)
    with run.artifacts() as folder:
        (folder / "note.txt").write_text(name)

fork = multiprocessing.get_context("fork")  # the libraries are imported once
start, used = fork.Barrier({PROCESSES}), fork.Barrier({PROCESSES} + 1)
children = [fork.Process(target=work, args=(start, used, f"process {{n}}")) for n in range({PROCESSES})]
for child in children:
    child.start()
while used.n_waiting < {PROCESSES} and not used.broken and any(child.is_alive() for child in children):
    children[0].join(0.05)
print("used", flush=True)
if sys.stdin.readline():
    used.wait()
else:  # the test has failed
    used.abort()
for child in children:
    child.join()
sys.exit(sum(child.exitcode != 0 for child in children))
"""


@dataclass(frozen=True)
class Written:
    """A folder that the processes used, and how they ended."""

    folder: Path
    code: int
    said: str
    looks: Counter[int]  # HTTP statuses of the MLflow UI while they wrote

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.folder}/mlflow.db")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Written:
    folder = tmp_path_factory.mktemp("together")
    settings = {**os.environ, "MLFLOW_EXPERIMENT_NAME": "together", "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=folder, env=settings, stderr=log, **pipes) as processes,
    ):
        assert processes.stdout.readline() == "used\n", (folder / "log").read_text()
        uri, looks = f"sqlite:///{folder}/mlflow.db", Counter()
        with services.mlflow_server(folder, uri, "127.0.0.1", services.free_port()) as ui:
            search = {"experiment_ids": ["1"], "max_results": 100, "order_by": ["attributes.start_time DESC"]}
            processes.stdin.write("write\n")
            processes.stdin.close()
            while processes.poll() is None:  # what the page of all runs asks for
                looks[requests.post(f"{ui}/ajax-api/2.0/mlflow/runs/search", json=search, timeout=60).status_code] += 1
    return Written(folder, processes.returncode, (folder / "log").read_text(), looks)


def test_sixteen_processes_that_start_together_in_a_new_folder_create_both_databases(written):
    """Without the lock nearly all of them fail, and a database may stay unusable."""
    assert written.code == 0, written.said
    names = {f"process {number}" for number in range(PROCESSES)}
    assert {run.info.run_name for run in written.client.search_runs(["1"])} == names
    storage = STORAGE.replace("studies.db", f"{written.folder}/studies.db")
    assert set(optuna.get_all_study_names(storage)) == names


def test_sixteen_processes_write_one_store_that_the_ui_reads(written):
    assert written.code == 0, written.said
    assert set(written.looks) == {200}, "the UI always answers"
    found = written.client.search_runs(["1"])
    assert len(found) == PROCESSES
    for run in found:
        assert (run.info.status, run.data.params) == ("FINISHED", {"writer": run.info.run_name})
        for metric in ("loss", "val_accuracy"):
            points = written.client.get_metric_history(run.info.run_id, metric)
            assert [point.step for point in points] == list(range(1, EPOCHS + 1)), "each epoch once, and in order"
        (note,) = written.folder.glob(f"mlruns/*/{run.info.run_id}/artifacts/note.txt")
        assert note.read_text() == run.info.run_name
