"""A worker that is killed leaves no semaphore of Keras, of which Python would warn when the driver ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Keras makes such a value for the first fit of a process, and Dask starts its workers by `spawn`
SCRIPT = """
import multiprocessing, os, signal, sys

def worker(forget):
    if forget:
        from fmnist_exp.tuning.workers import local
        local.forget_names()
    kept = multiprocessing.Value("i", 0)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=worker, args=[sys.argv[1] == "forget"])
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
"""


@pytest.mark.parametrize("forget", [True, False])
def test_a_killed_worker_leaves_no_semaphore(tmp_path, forget):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "script.py", "forget" if forget else "keep"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert ("leaked semaphore" in done.stderr) is not forget, done.stderr
