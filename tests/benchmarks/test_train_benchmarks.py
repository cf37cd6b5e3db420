"""What benchmarks/ computes from what it measures, and that its peers are the published networks."""

import importlib
import json
import platform
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fmnist_exp.training.muon import muon

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    """Import a module of benchmarks/, as a script there would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))

        def load(name: str) -> ModuleType:
            return importlib.import_module(name)

        yield load
    for name in [
        name for name, module in sys.modules.items() if BENCHMARKS in Path(str(module.__dict__.get("__file__"))).parents
    ]:
        del sys.modules[name]


@pytest.mark.parametrize(("name", "parameters"), [("deep_cnn_keras", 1_869_258), ("funnel_mlp_keras", 567_434)])
def test_the_peers_have_the_published_number_of_parameters(benchmark, small, name, parameters):
    recipe = benchmark(f"peers.{name}")
    model = recipe.build()
    assert model.count_params() == parameters
    assert model(recipe.inputs(small.test.images[:2])).shape == (2, 10)


def test_what_was_wanted_of_whole_fits_is_said_as_far_as_they_are_there(benchmark):
    """Times and precisions are compared between fits of the same seed; a mean of ratios is no ratio of means."""
    report, fit = benchmark("train_report"), benchmark("train_fits").Fit
    assert report.verdicts({}) == []
    found = {
        ("platform", "cnn_fast"): {0: fit(80, 0.934, 0.93, ended=1000), 2: fit(40, 0.932, 0.93, ended=2000)},
        ("stock", "cnn_fast"): {0: fit(200, 0.99, 0.93), 1: fit(900, 0.99, 0.93), 2: fit(40, 0.99, 0.93)},
        ("float32", "cnn_fast"): {0: fit(100, 0.930, 0.93), 1: fit(100, 0.99, 0.93), 2: fit(100, 0.933, 0.93)},
        ("peer", "deep_cnn_keras"): {0: fit(1200, 0.93, 0.93, ended=2200), 2: fit(560, 0.93, 0.93, ended=2600)},
        ("platform", "cnn_95"): {0: fit(3601, 0.9501, 0.95)},
        ("platform", "mlp"): {0: fit(100, 0.91, 0.91)},
    }
    assert report.verdicts(found) == [
        ("cnn_fast: 93.30 ± 0.14 (n = 2) % on the test set, wanted 93.0", True),
        ("cnn_95: 95.01 (n = 1) % on the test set, wanted 95.0", True),
        (
            "deep_cnn (peer): 14.5 ± 0.7 (n = 2) times as long as cnn_fast, ended within 20 minutes of it, wanted 15",
            False,
        ),
        ("cnn_fast (stock): 1.8 ± 1.1 (n = 2) times as long as cnn_fast, wanted 2", False),
        (
            "cnn_fast: bfloat16 has +0.15 points on the test set against float32, n = 2,"
            " wanted 0.18 at most, one standard error",
            True,
        ),
        ("cnn_95: 3,601 s at most (n = 1), wanted 3,600", False),
    ]
    apart = {**found, ("float32", "cnn_fast"): {0: fit(100, 0.930, 0.93), 2: fit(100, 0.929, 0.93)}}
    assert [reached for said, reached in report.verdicts(apart) if "float32" in said] == [False]


def test_a_folder_tells_which_fits_it_has(benchmark, tmp_path, capsys):
    report, fits = benchmark("train_report"), benchmark("train_fits")
    assert fits.known_fits(tmp_path) == ({}, [f"{name} ({kind}, seed {seed})" for kind, name, seed in fits.FITS])
    report.show_fits(*fits.known_fits(tmp_path))
    assert capsys.readouterr().out.startswith("No whole fits yet")
    there = {
        ("platform", "cnn_fast"): {1: fits.Fit(80.0, 0.934, 0.93, 1000.0, 90.0, 5.0)},
        ("float32", "cnn_fast"): {1: fits.Fit(120.0, 0.93, 0.93, ended=6.0)},
        ("stock", "cnn_fast"): {1: fits.Fit(170.0, 0.93, 0.92, ended=6.0)},
        ("peer", "deep_cnn_keras"): {0: fits.Fit(30.0, 0.931, 0.93, ended=7.0)},
    }
    for kind in ("platform", "float32", "stock"):
        fits.write(fits.result(tmp_path, kind, "cnn_fast", 1), there[kind, "cnn_fast"][1])
    for seed, accuracy in ((0, 0.931), (1, 0.92)):  # the second is not done
        (tmp_path / f"deep_cnn_keras-{seed}").mkdir()
        epoch = {"seconds": 30.0, "val_accuracy": 0.93, "test_accuracy": accuracy, "ended": 7.0}
        (tmp_path / f"deep_cnn_keras-{seed}/curve.json").write_text(json.dumps({"epochs": [epoch], "done": False}))
    found, missing = fits.known_fits(tmp_path)
    assert found == there
    assert len(missing) == len(fits.FITS) - 4
    report.show_fits(found, missing)
    assert "deep_cnn_keras (peer, seed 1)" in capsys.readouterr().out.replace("\n", " ")


def test_a_fit_that_is_known_is_not_made_again(benchmark, tmp_path, monkeypatch):
    """The command that would fit is told where its result belongs."""
    speed, fits, begun = benchmark("train_speed"), benchmark("train_fits"), []

    def command(arguments, folder):
        *_, name, seed, file = arguments
        begun.append((name, seed))
        fits.write(Path(file), fits.Fit(160.0, 0.94, 0.92))

    monkeypatch.setattr(fits, "command", command)
    monkeypatch.setattr(speed, "FITS", [("stock", "cnn_fast", 0), ("stock", "cnn_fast", 1)])
    fits.write(fits.result(tmp_path, "stock", "cnn_fast", 0), fits.Fit(170.0, 0.93, 0.92))
    speed.fit_all(tmp_path)
    speed.fit_all(tmp_path)
    assert begun == [("cnn_fast", "1")]


def test_a_store_is_of_one_machine(benchmark, tmp_path):
    speed = benchmark("train_speed")
    here = {"cores": 2, "processor": "one", "bfloat16": "AMX"}
    speed.keep_to(tmp_path, here)
    speed.keep_to(tmp_path, here)
    with pytest.raises(SystemExit, match="measured on 2 cores, one: take another --store"):
        speed.keep_to(tmp_path, {**here, "processor": "another"})
    assert speed.read(tmp_path, "machine") == here


@pytest.mark.parametrize(
    ("told", "name", "unit"),
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
def test_the_processor_is_what_linux_says(benchmark, tmp_path, monkeypatch, told, name, unit):
    reporting = benchmark("reporting")
    monkeypatch.setattr(reporting, "CPU", tmp_path / "cpuinfo")
    if told:
        (tmp_path / "cpuinfo").write_text(told)
    assert (reporting.processor(), reporting.bfloat16_unit()) == (name, unit)


def test_the_stock_contestant_has_the_experiments_own_optimizer(benchmark, monkeypatch):
    """By its name, Keras would take its own Muon, which leaves convolutions to AdamW."""
    contestants, fitted = benchmark("contestants"), []
    monkeypatch.setattr(contestants, "stock_fit", lambda began, model, *rest: fitted.append(model))
    contestants.stock(0.0, "cnn", 256)
    assert type(fitted[0].optimizer) is type(muon(0.1, 0.9, 0.0))


def test_a_moment_is_divided_among_what_runs_in_it(benchmark):
    """Two operations side by side from 2 to 4; then the executor alone, then a wait for a batch within it."""
    profile = benchmark("train_profile")
    events = [
        profile.Event(0, 10, "ExecutorState::Process"),
        profile.Event(0, 4, "cnn/conv2d_1/convolution:_MklNativeConv2D"),
        profile.Event(2, 5, "sgd/Mul_3:Mul"),
        profile.Event(0, 9, "while/body:While"),  # it runs as long as what is in it
        profile.Event(7, 10, "IteratorGetNextAsOptionalOp::DoCompute"),
    ]
    shares = profile.divided(events)
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
def test_an_operation_has_its_kind(benchmark, name, kind):
    assert benchmark("train_profile").kind(name) == kind


def test_a_peer_counts_until_it_is_good_enough_or_at_its_best(benchmark):
    fits = benchmark("train_fits")
    epochs = [
        {"seconds": 10.0 * number, "val_accuracy": 0.9, "test_accuracy": accuracy}
        for number, accuracy in enumerate((0.90, 0.925, 0.931, 0.935, 0.92), start=1)
    ]
    assert (fits.good_enough(epochs, 0.93).seconds, fits.good_enough(epochs, 0.93).test_accuracy) == (30, 0.931)
    assert fits.good_enough(epochs, 0.95).seconds == 40
    assert fits.good_enough([], 0.93) is None
