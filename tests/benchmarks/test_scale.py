"""The benchmark of long searches: its trials log curves, each leaves a line, and the table compares the ends."""

import csv

import mlflow
import pytest

from benchmarks.scale import costs, search
from benchmarks.scale.costs import LOG, SIZES


def test_each_trial_logs_its_curve_and_leaves_a_line(store, tmp_path):
    storage = f"sqlite:///{tmp_path}/studies.db"
    for trials in (3, 5):  # the second call continues the first one
        log = search.CostLog(tmp_path, lambda: {"tracking": 1})
        search.run(trials, 1, storage, log)
    read = costs.read(tmp_path / LOG)
    assert [cost.number for cost in read] == [1, 2, 4]  # the first trial of a call is left out
    assert all(cost.seconds >= cost.cpu_seconds * 0.5 > 0 and cost.resident > 2**20 for cost in read)
    client = mlflow.MlflowClient()
    runs = client.search_runs(["0"], "tags.`fmnist.kind` = 'trial'")
    assert len(runs) == 5
    for run in runs:
        curve = client.get_metric_history(run.info.run_id, "val_accuracy")
        assert [metric.step for metric in curve] == list(range(1, search.EPOCHS + 1))


@pytest.mark.parametrize(("slower", "code"), [(1.1, 0), (1.5, 1)])
def test_the_table_compares_the_last_hundred_with_the_first(tmp_path, capsys, slower, code):
    with (tmp_path / LOG).open("w", newline="") as file:
        for number in range(1000):
            busy = 2 if number < 500 else 1  # the machine was slower, which is no change of the trials
            seconds = 0.1 * busy * (slower if number >= 900 else 1)
            csv.writer(file).writerow([number, 7, seconds, seconds / 2, 0.001 * busy, 2**30])
    (tmp_path / SIZES).write_text("1000,studies,2097152\n")
    assert costs.show(tmp_path) == code
    printed = capsys.readouterr().out
    assert f"last 100 of 1000: {slower:.2f} times the first 100, in CPU time {slower:.2f} times" in printed
    assert "1000 trials: studies 2.0 MiB" in printed
