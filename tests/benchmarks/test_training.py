"""Tests of what the training benchmarks compute from their measurements, and of the peers' networks."""

import json
import platform
from pathlib import Path

import keras
import numpy as np
import pytest

from benchmarks import reporting
from benchmarks.peers import curve, deep_cnn_keras, funnel_mlp_keras
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
        ("platform", "cnn_fast"): {
            0: Fit(80, 0.934, 0.93, ended=1000, reached=60),
            2: Fit(40, 0.932, 0.93, ended=2000, reached=40),
        },
        ("stock", "cnn_fast"): {0: Fit(200, 0.99, 0.93), 1: Fit(900, 0.99, 0.93), 2: Fit(40, 0.99, 0.93)},
        ("peer", "deep_cnn_keras"): {
            0: Fit(1500, 0.93, 0.93, ended=2200, reached=900),
            2: Fit(600, 0.93, 0.93, ended=2600, reached=560),
        },
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


def test_a_network_in_float32_reaches_a_share_of_the_peak_or_a_ratio_to_stock_layers():
    def measured(rate: float, flop: float) -> report.Measured:
        return report.Measured({"flop": flop, "batch": 256}, [rate, rate])

    found = {
        "float32": measured(100e9, 1),
        "cnn_stock": measured(500, 100e6),
        "cnn_float32": measured(601, 100e6),
        "cnn_fast_stock": measured(400, 100e6),
        "cnn_fast_float32": measured(590, 100e6),
    }
    cnn, cnn_fast = report.in_float32(found)
    assert (cnn.value, cnn.reached) == (pytest.approx(0.601), True)
    assert (cnn_fast.value, cnn_fast.reached) == (pytest.approx(0.59), False)
    assert "1.48 ± 0.00 (n = 2) times the images/s of its stock layers" in cnn_fast.sentence
    found["cnn_fast_stock"] = measured(380, 100e6)
    assert report.in_float32(found)[1].reached
    del found["cnn_stock"]
    assert len(report.in_float32(found)) == 1


def test_the_folder_knows_its_fits(tmp_path, capsys):
    assert fits.known_fits(tmp_path) == ({}, [f"{name} ({kind}, seed {seed})" for kind, name, seed in fits.FITS])
    expected = {
        ("platform", "cnn_fast"): {1: Fit(80.0, 0.934, 0.93, 1000.0, 90.0, 5.0)},
        ("stock", "cnn_fast"): {1: Fit(170.0, 0.93, 0.92, ended=6.0)},
        ("peer", "deep_cnn_keras"): {0: Fit(60.0, 0.931, 0.93, ended=8.0, reached=60.0)},
    }
    for kind in ("platform", "stock"):
        fits.write(fits.result_file(tmp_path, kind, "cnn_fast", 1), expected[kind, "cnn_fast"][1])
    epochs = [
        {"seconds": 30.0, "val_accuracy": 0.92, "val_loss": 0.3, "ended": 7.0},
        {"seconds": 60.0, "val_accuracy": 0.93, "val_loss": 0.2, "ended": 8.0},
    ]
    end = {"done": True, "val_accuracy": 0.93, "test_accuracy": 0.931}
    for seed, written in enumerate(({"epochs": epochs, **end}, {"epochs": epochs, "done": False})):
        (tmp_path / f"deep_cnn_keras-{seed}").mkdir()
        (tmp_path / f"deep_cnn_keras-{seed}/curve.json").write_text(json.dumps(written))
    found, missing = fits.known_fits(tmp_path)
    assert found == expected
    assert len(missing) == len(fits.FITS) - 3
    report.show_fits(found, missing)
    shown = capsys.readouterr().out.replace("\n", " ")
    assert "deep_cnn_keras (peer, seed 1)" in shown
    assert "deep_cnn in plain Keras, test accuracy of each seed, %: 93.10 (seed 0)" in shown


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


def test_time_to_accuracy_is_taken_on_validation_by_one_rule():
    """Finding F7: the test set chooses neither the time nor the network of a contestant."""
    points = [(10.0, 0.90), (20.0, 0.926), (30.0, 0.92), (40.0, 0.93)]
    assert fits.seconds_to_wanted(points) == 20
    assert fits.seconds_to_wanted([(10.0, 0.90), (10.5, 0.925)]) == 10.5  # the finished network comes last
    assert fits.seconds_to_wanted([(10.0, 0.90)]) is None
    found = {
        ("platform", "cnn_fast"): {0: Fit(80, 0.93, 0.93, reached=40), 1: Fit(80, 0.99, 0.91)},
        ("peer", "deep_cnn_keras"): {0: Fit(900, 0.93, 0.93, reached=800), 1: Fit(900, 0.93, 0.93, reached=800)},
    }
    verdict = report.slower(found, ("peer", "deep_cnn_keras"), 15)
    assert (verdict.value, verdict.reached) == (20, False)
    assert "for 1 of 2 seeds" in verdict.sentence


class Recipe:
    """A recipe like those of benchmarks/peers, which becomes worse after its first epoch."""

    BATCH = 32

    def __init__(self) -> None:
        self.sizes: list[int] = []  # of the splits that were asked for

    def build(self) -> keras.Model:
        own = [keras.layers.Input((28, 28)), keras.layers.Flatten(), keras.layers.Dense(10, "softmax")]
        model = keras.Sequential(own)
        model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    def inputs(self, images: np.ndarray) -> np.ndarray:
        self.sizes.append(len(images))
        return images.astype("float32") / 255

    def targets(self, labels: np.ndarray) -> np.ndarray:
        return labels

    def recipe_callbacks(self, folder: Path) -> list[keras.callbacks.Callback]:
        worse = keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 if epoch == 0 else 50.0)
        return [keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True), worse]


def test_a_peer_is_scored_on_the_test_set_once_at_its_end(tmp_path, data):
    """Finding F7: the score is that of the network that the recipe restores, also after the fit was resumed."""
    recipe, tests = Recipe(), len(data.test.images)
    curve.train(recipe, tmp_path, seed=0, epochs=1, images=640)
    first = curve.read(tmp_path)
    assert recipe.sizes.count(tests) == 1
    curve.write(tmp_path, {"epochs": first["epochs"], "done": False})  # as a fit that is killed in its second epoch
    curve.train(recipe, tmp_path, seed=0, epochs=3, images=640)
    curve.train(recipe, tmp_path, seed=0, epochs=3, images=640)
    found = curve.read(tmp_path)
    assert recipe.sizes.count(tests) == 2
    assert not any("test_accuracy" in epoch for epoch in found["epochs"])
    assert len(found["epochs"]) == 3
    assert found["epochs"][0]["val_loss"] < min(epoch["val_loss"] for epoch in found["epochs"][1:])
    assert (found["done"], found["test_accuracy"]) == (True, first["test_accuracy"])
    assert found["val_accuracy"] == first["val_accuracy"] == pytest.approx(found["epochs"][0]["val_accuracy"], abs=1e-6)
    assert fits.peers_fit(found).test_accuracy == found["test_accuracy"]
