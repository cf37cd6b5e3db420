"""Tests of the benchmarks of tracking: their options, what they compute from times, and one way of each kind."""

import json
import subprocess
import sys

import pytest

from benchmarks import processes
from benchmarks.tracking import cost, finishing, outage


def times(epochs, runs):
    return {"epochs": epochs, "runs": runs, "cpu": runs}


def test_the_difference_and_the_limits():
    assert cost.difference([3.0, 5.0], [1.0, 1.0]) == (3.0, 1.0)
    ways = {way: times([1.0, 2.0], [10.0, 12.0]) for way in cost.NAMES}
    assert cost.within_limits(ways)
    assert not cost.within_limits({**ways, "ours": times([4.0, 5.0], [10.0, 12.0])})
    assert not cost.within_limits({**ways, "ours": times([1.0, 2.0], [80.0, 82.0])})
    lines = list(cost.verdict({"embedded SQLite": ways, "a local server": ways}))
    assert "With embedded SQLite the spool adds +0.0 ± 0.7 ms to an epoch; at most 2 are allowed." in lines
    assert "With a local server the spool adds +0.0 ± 1.4 ms to the rest of a run." in lines
    assert len(list(cost.table("embedded SQLite", ways))) == 2 + len(cost.NAMES)


@pytest.mark.parametrize("way", ["client", "ours"])
def test_a_way_logs_runs_and_prints_its_times(store, tmp_path, way):
    script = processes.PROJECT / "benchmarks" / "tracking" / "once.py"
    environment = {**processes.environment(tmp_path), "MLFLOW_TRACKING_URI": store}
    environment["PYTHONPATH"] = str(processes.PROJECT)
    done = subprocess.run(
        [sys.executable, "-P", str(script), way, "1"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(found["epochs"]) == 20
    assert len(found["runs"]) == len(found["cpu"]) == 1
    assert all(value > 0 for values in found.values() for value in values)


def test_a_trace_is_cut_at_the_outage(tmp_path):
    trace = outage.Trace(away=(10.0, 20.0))
    trace.epochs = [(float(at), 100.0 + at) for at in range(0, 30, 3)]
    assert trace.speeds() == {"before": [106.0, 109.0], "during": [112.0, 115.0, 118.0], "after": [121.0, 124.0, 127.0]}
    trace.waiting = [(float(at), at - 10 if 10 < at < 20 else 0) for at in range(30)]
    trace.sent = [(float(at), 2 * at) for at in range(30)]
    text = "\n".join(outage.numbers(trace, is_complete=True))
    assert "The server was away for 10 s." in text
    assert "At most 9 records waited; all were sent 1 s after it was back." in text
    outage.draw(trace, tmp_path / "outage.png")
    assert (tmp_path / "outage.png").stat().st_size > 10_000


def test_the_options():
    assert vars(cost.parser().parse_args([])) == {"rounds": 4, "repeats": 5, "before": cost.BEFORE}
    assert vars(finishing.parser().parse_args(["--repeats", "2"])) == {"repeats": 2}
    assert outage.parser().parse_args(["--minutes", "0.5"]).minutes == 0.5
