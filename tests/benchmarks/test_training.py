"""Tests of what the training benchmarks compute from their measurements, and of the peers' networks."""

import json
import platform
from pathlib import Path

import pytest

from benchmarks import reporting
from benchmarks.peers import deep_cnn_keras, funnel_mlp_keras
from benchmarks.training import contestants, fits, profile, report, speed
from benchmarks.training.fits import Fit
from fmnist_exp.training.optimizers import Muon


@pytest.mark.parametrize(("recipe", "parameters"), [(deep_cnn_keras, 1_869_258), (funnel_mlp_keras, 567_434)])
def test_the_peers_have_the_published_number_of_parameters(small, recipe, parameters):
    model = recipe.build()
    assert model.count_params() == parameters
    assert model(recipe.inputs(small.test.images[:2])).shape == (2, 10)


def test_verdicts_compare_fits_of_the_same_seed():
    found = {
        ("platform", "cnn_fast"): {0: Fit(80, 0.934, 0.93, ended=1000), 2: Fit(40, 0.932, 0.93, ended=2000)},
        ("stock", "cnn_fast"): {0: Fit(200, 0.99, 0.93), 1: Fit(900, 0.99, 0.93), 2: Fit(40, 0.99, 0.93)},
        ("peer", "deep_cnn_keras"): {0: Fit(1200, 0.93, 0.93, ended=2200), 2: Fit(560, 0.93, 0.93, ended=2600)},
        ("platform", "cnn_95"): {0: Fit(3601, 0.9501, 0.95)},
        ("platform", "mlp"): {0: Fit(100, 0.91, 0.91)},
    }
    fast, slow = report.accuracies(found)
    assert (fast.value, fast.reached) == (pytest.approx(93.3), True)
    assert (slow.value, slow.reached) == (pytest.approx(95.01), True)
    peer = report.slower(found, ("peer", "deep_cnn_keras"), 15)
    assert (peer.value, peer.reached) == (pytest.approx((15 + 14) / 2), False)  # the mean of the ratios
    assert "20 minutes" in peer.sentence
    stock = report.slower(found, ("stock", "cnn_fast"), 2)
    assert (stock.value, stock.reached) == (pytest.approx((2.5 + 1) / 2), False)
    assert (report.longest(found).value, report.longest(found).reached) == (3601, False)
    assert report.better_mlp(found) is None
    assert len(report.verdicts(found)) == 5


def test_the_folder_knows_its_fits(tmp_path, capsys):
    assert fits.known_fits(tmp_path) == ({}, [f"{name} ({kind}, seed {seed})" for kind, name, seed in fits.FITS])
    expected = {
        ("platform", "cnn_fast"): {1: Fit(80.0, 0.934, 0.93, 1000.0, 90.0, 5.0)},
        ("stock", "cnn_fast"): {1: Fit(170.0, 0.93, 0.92, ended=6.0)},
        ("peer", "deep_cnn_keras"): {0: Fit(30.0, 0.931, 0.93, ended=7.0)},
    }
    for kind in ("platform", "stock"):
        fits.write(fits.result_file(tmp_path, kind, "cnn_fast", 1), expected[kind, "cnn_fast"][1])
    for seed, accuracy in ((0, 0.931), (1, 0.92)):  # the second is unfinished
        (tmp_path / f"deep_cnn_keras-{seed}").mkdir()
        epoch = {"seconds": 30.0, "val_accuracy": 0.93, "test_accuracy": accuracy, "ended": 7.0}
        (tmp_path / f"deep_cnn_keras-{seed}/curve.json").write_text(json.dumps({"epochs": [epoch], "done": False}))
    found, missing = fits.known_fits(tmp_path)
    assert found == expected
    assert len(missing) == len(fits.FITS) - 3
    report.show_fits(found, missing)
    assert "deep_cnn_keras (peer, seed 1)" in capsys.readouterr().out.replace("\n", " ")


def test_a_fit_that_is_known_is_not_repeated(tmp_path, monkeypatch):
    commands = []

    def command(arguments, folder):
        *_, name, seed, file = arguments
        commands.append((name, seed))
        fits.write(Path(file), Fit(160.0, 0.94, 0.92))

    monkeypatch.setattr(fits, "command", command)
    monkeypatch.setattr(fits, "FITS", [("stock", "cnn_fast", 0), ("stock", "cnn_fast", 1)])
    fits.write(fits.result_file(tmp_path, "stock", "cnn_fast", 0), Fit(170.0, 0.93, 0.92))
    speed.fit_all(tmp_path)
    speed.fit_all(tmp_path)
    assert commands == [("cnn_fast", "1")]


def test_a_store_has_the_results_of_one_machine(tmp_path):
    here = {"cores": 2, "processor": "one", "bfloat16": "AMX"}
    speed.check_machine(tmp_path, here)
    speed.check_machine(tmp_path, here)
    with pytest.raises(SystemExit, match="take another --store"):
        speed.check_machine(tmp_path, {**here, "processor": "another"})
    assert speed.read(tmp_path, "machine") == here


@pytest.mark.parametrize(
    ("cpu_info", "name", "unit"),
    [
        (
            "processor\t: 0\nmodel name\t: Some CPU: fast\nflags\t\t: fpu avx512_bf16 amx_bf16\n",
            "Some CPU: fast",
            "AMX",
        ),
        ("model name: Other\nflags : fpu avx512_bf16\n", "Other", "AVX-512"),
        (None, platform.processor() or "unknown", "no unit of its own"),
    ],
)
def test_the_processor_is_read_from_linux(tmp_path, monkeypatch, cpu_info, name, unit):
    monkeypatch.setattr(reporting, "CPU", tmp_path / "cpuinfo")
    if cpu_info:
        (tmp_path / "cpuinfo").write_text(cpu_info)
    assert (reporting.processor(), reporting.bfloat16_unit()) == (name, unit)


def test_the_stock_contestant_has_the_experiments_own_optimizer(monkeypatch):
    """Keras' own Muon, which has the same name, would leave convolutions to AdamW."""
    fitted = []
    monkeypatch.setattr(contestants, "stock_fit", lambda started, model, *rest: fitted.append(model))
    contestants.stock(0.0, "cnn", 256)
    assert type(fitted[0].optimizer) is Muon


def test_a_moment_is_divided_among_the_operations_that_run():
    """Two operations overlap from 2 to 4; then the executor runs alone, then it waits for a batch."""
    events = [
        profile.Event(0, 10, "ExecutorState::Process"),
        profile.Event(0, 4, "cnn/conv2d_1/convolution:_MklNativeConv2D"),
        profile.Event(2, 5, "sgd/Mul_3:Mul"),
        profile.Event(0, 9, "while/body:While"),  # a loop runs as long as the operations in it
        profile.Event(7, 10, "IteratorGetNextAsOptionalOp::DoCompute"),
    ]
    shares = profile.divide(events)
    assert shares == {
        "cnn/conv2d_1/convolution:_MklNativeConv2D": 3,
        "sgd/Mul_3:Mul": 2,
        profile.SCHEDULING: 2,
        profile.WAITING: 3,
    }


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cnn_1/conv2d_4/convolution:_MklNativeConv2D", "convolutions, forward"),
        ("gradient_tape/cnn_1/conv2d/convolution/Conv2DBackpropFilter:x", "convolutions, gradient of the weights"),
        ("gradient_tape/sequential/dense_2/MatMul/MatMul_1:_MklMatMul", "dense layers, backward"),
        ("gradient_tape/x/batch_normalization/FusedBatchNormGradV3:_Mkl", "normalisation, backward"),
        ("StatefulPartitionedCall/adam/Sqrt_7:Sqrt", "optimizer"),
        ("PyFunc:PyFunc", "input: making batches"),
        ("cnn_1/add_1/Add:AddV2", "shortcuts, reshapes, copies"),
    ],
)
def test_the_kind_of_an_operation(name, kind):
    assert profile.kind(name) == kind


def test_a_peer_counts_until_it_is_good_enough_or_at_its_best():
    epochs = [
        {"seconds": 10.0 * number, "val_accuracy": 0.9, "test_accuracy": accuracy}
        for number, accuracy in enumerate((0.90, 0.925, 0.931, 0.935, 0.92), start=1)
    ]
    assert (fits.good_enough(epochs, 0.93).seconds, fits.good_enough(epochs, 0.93).test_accuracy) == (30, 0.931)
    assert fits.good_enough(epochs, 0.95).seconds == 40
    assert fits.good_enough([], 0.93) is None
