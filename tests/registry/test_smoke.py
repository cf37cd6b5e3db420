"""MLflow's scoring server as a process of its own. Answers of real models are in test_gate."""

import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from fmnist_exp.errors import WorkError
from fmnist_exp.registry import smoke

IMAGE = np.zeros((28, 28), np.uint8)


def test_a_server_that_does_not_start_is_an_error_with_its_last_line(tmp_path):
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    with pytest.raises(WorkError, match=r"did not start: \S"):
        smoke.request(tmp_path, IMAGE)


def test_a_server_that_is_not_ready_in_time_is_an_error(tmp_path):
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    with pytest.raises(WorkError, match=r"did not start within 0\.2 seconds"):
        smoke.request(tmp_path, IMAGE, limit=0.2)


def test_the_server_ends_with_a_command_that_is_killed(tmp_path):
    code = """if True:
        import sys, time
        from pathlib import Path
        from fmnist_exp.registry import smoke
        with open(sys.argv[2], "wb") as log, smoke.server(Path(sys.argv[1]), log) as (_, server):
            print(server.pid, flush=True)
            time.sleep(60)
    """
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    arguments = [sys.executable, "-c", code, tmp_path, tmp_path / "log"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as command:
        server = psutil.Process(int(command.stdout.readline()))
        assert server.status() != psutil.STATUS_ZOMBIE
        command.kill()
    deadline = time.monotonic() + 30
    while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:  # nobody may have waited for it
        assert time.monotonic() < deadline
        time.sleep(0.1)
