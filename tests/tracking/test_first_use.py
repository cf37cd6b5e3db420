"""Processes that make first use of a folder at the same moment do not get in each other's way."""

import os
import subprocess
import sys

import pytest

PROCESSES = 8
TOGETHER = f"""
import multiprocessing, sys
from fmnist_exp.tracking import run as runs, store
from fmnist_exp.tuning import study
from fmnist_exp.tuning.workers import study_lock
from support.searches import STORAGE, configure

def use(barrier, name):
    barrier.wait()
    with runs.closing(runs.start_run(store.connect(), "tune", name, name)), study_lock.hold(STORAGE, name):
        study.open_study(configure(), name, STORAGE)

fork = multiprocessing.get_context("fork")  # the libraries are imported once
barrier = fork.Barrier({PROCESSES})
children = [fork.Process(target=use, args=(barrier, str(number))) for number in range({PROCESSES})]
for child in children:
    child.start()
for child in children:
    child.join()
sys.exit(sum(child.exitcode != 0 for child in children))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")
def test_processes_that_start_together_in_a_new_folder_create_both_databases(tmp_path):
    """Without the lock nearly all of them fail, and a database may stay unusable."""
    environment = {**os.environ, "MLFLOW_EXPERIMENT_NAME": "together", "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", TOGETHER], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert {"mlflow.db", "studies.db"} <= {path.name for path in tmp_path.iterdir()}
