"""Tests of the benchmark of searches on LCBench: the real driver in virtual time, on a small surrogate made here."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.lcbench import __main__ as lcbench
from benchmarks.lcbench import ours, peers, results, surrogate
from benchmarks.lcbench.ledger import Ledger, Problem, Spent
from benchmarks.lcbench.surrogate import EPOCHS, SPACE, Surrogate

SEARCHES = ["fmnist_exp", "fmnist_exp:sampler=gp,min_epochs=2,reduction_factor=2", "fmnist_exp:pruner=none"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Write a surrogate whose accuracy is a sigmoid of the epoch, the momentum, the dropout and the task."""
    folder = tmp_path_factory.mktemp("surrogate")
    weights = np.zeros((8, 6), np.float32)
    weights[[0, 3, 7], surrogate.ACCURACY] = 0.03, 2.0, -1.0
    nodes = [
        helper.make_node("MatMul", ["x_cont", "weights"], ["line"]),
        helper.make_node("Cast", ["x_cat"], ["task"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["line", "task"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["fraction"]),
        helper.make_node("Mul", ["fraction", "hundred"], ["output"]),
    ]
    inputs = [
        helper.make_tensor_value_info("x_cat", TensorProto.INT32, ["n", 1]),
        helper.make_tensor_value_info("x_cont", TensorProto.FLOAT, ["n", 8]),
    ]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 6])]
    constants = [numpy_helper.from_array(weights, "weights")]
    constants.append(numpy_helper.from_array(np.float32([100]), "hundred"))
    graph = helper.make_graph(nodes, "surrogate", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    (folder / "encoding.json").write_text(json.dumps({"OpenML_task_id": {"#na#": 0, "7": 1, "8": 2, "3945": 3}}))
    return folder


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def problem(folder: Path, budget: int) -> Problem:
    first = surrogate.random_setting(np.random.default_rng(0))
    return Problem(Surrogate("7", folder).curve, Ledger(budget), first, seed=0)


@pytest.mark.parametrize("name", SEARCHES)
def test_the_driver_in_virtual_time_repeats_itself(folder, name):
    one, two = (lcbench.search(name, "7", 3, 4 * EPOCHS, folder) for _ in range(2))
    assert (one.best, one.trials) == (two.best, two.trials)
    assert one.regret(4 * EPOCHS) <= one.regret(EPOCHS) < one.regret(1) <= 100


@pytest.mark.parametrize("workers", [1, 2])
def test_our_search_spends_the_budget_and_no_more(folder, workers):
    given = problem(folder, 3 * EPOCHS)
    ours.run(given, {}, workers)
    # the second worker has nothing to begin that would come to its first rung while the first one ends its trial
    assert 3 * EPOCHS - 10 * (workers - 1) <= given.ledger.epochs <= 3 * EPOCHS


@pytest.mark.parametrize("name", peers.PEERS)
def test_peers_spend_the_budget_and_no_more(folder, name):
    given = problem(folder, 2 * EPOCHS + 5)
    with pytest.raises(Spent):
        peers.PEERS[name](given)
    assert given.ledger.epochs == 2 * EPOCHS + 5


def test_all_begin_with_the_same_setting(folder):
    bests = [lcbench.search(name, "8", 1, 1, folder).best for name in [*SEARCHES, *peers.PEERS]]
    assert bests == bests[:1] * len(bests)


def test_a_setting_reaches_the_surrogate_as_it_was_suggested(folder):
    seen = []

    def curve(setting):
        seen.append(dict(setting))
        return np.full(EPOCHS, 0.5)

    given = problem(folder, 3 * EPOCHS)
    ours.run(Problem(curve, given.ledger, given.first, 0), {"pruner": "none"})
    assert seen[0] == pytest.approx(given.first)
    assert all(known.low <= setting[name] <= known.high for setting in seen for name, known in SPACE.items())


def test_a_course_is_kept_at_points_that_leave_the_reported_regrets_as_they_were():
    generator = np.random.default_rng(0)
    values = np.maximum.accumulate(generator.random(20 * EPOCHS) ** 0.01)
    best = [(epoch, float(value)) for epoch, value in enumerate(values, start=1)]
    kept = results.thinned(best, 20 * EPOCHS)
    assert len(kept) <= results.POINTS + len(results.SHARES)
    known = {"contestant": "", "version": "", "task": "", "seed": 0, "budget": 0, "trials": 0, "seconds": 0.0}
    whole, thin = (results.Result(**known, worst=0.0, top=1.0, best=course) for course in (best, kept))
    for share in results.SHARES:
        assert thin.regret(share * 20 * EPOCHS) == pytest.approx(whole.regret(share * 20 * EPOCHS), abs=1e-4)
    assert all(thin.regret(epoch) >= whole.regret(epoch) - 1e-4 for epoch in range(1, 20 * EPOCHS))
    assert results.thinned([(1, 0.5), (2, 0.5), (3, 0.4)], 1020) == [(1, 0.5)]


def test_the_benchmark_resumes(folder, tmp_path, monkeypatch, capsys):
    options = ["--tasks", "7", "8", "--budget", "2", "--surrogate", str(folder), "--folder", str(tmp_path / "out")]
    some = ["--contestants", "random_search", "asha"]
    lcbench.main([*options, *some, "--seeds", "1"])
    before = results.read(tmp_path / "out" / "results.jsonl")
    with (tmp_path / "out" / "results.jsonl").open("a") as file:
        file.write('{"contestant": "asha", "ta')  # as a kill leaves it
    lcbench.main([*options, *some, "--seeds", "2"])
    after = results.read(tmp_path / "out" / "results.jsonl")
    assert (len(before), len(after)) == (4, 8)
    assert before.items() <= after.items()
    monkeypatch.setattr(lcbench, "search", None)  # nothing is left to search
    capsys.readouterr()
    lcbench.main([*options, *some, "--seeds", "2"])
    table = capsys.readouterr().out
    assert "mean over 2 tasks of the mean over 2 seeds" in table
    assert table.count("| asha |") == table.count("| random_search |") == 1
    assert (tmp_path / "out" / "regret.png").exists()


def test_the_sets_of_tasks_do_not_overlap(folder):
    assert surrogate.tasks("report", folder) == ["7", "8"]
    assert len(set(surrogate.tasks("develop", folder))) == 17


@pytest.mark.parametrize("tasks", ["develop", "report", "7"])
def test_a_missing_surrogate_is_one_sentence(tmp_path, capsys, tasks):
    with pytest.raises(SystemExit) as ended:
        lcbench.main(["--surrogate", str(tmp_path), "--tasks", tasks])
    assert ended.value.code == 2
    assert "has no encoding.json; name the folder of LCBench's" in capsys.readouterr().err


def test_unknown_tasks_and_contestants_are_refused(folder, capsys):
    for wrong, message in (["--tasks", "9"], "no task 9"), (["--contestants", "luck"], "no contestant 'luck'"):
        with pytest.raises(SystemExit):
            lcbench.main(["--surrogate", str(folder), *wrong])
        assert message in capsys.readouterr().err
