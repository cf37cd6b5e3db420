"""What benchmarks/ computes from what it measures, and that its peers are the published networks."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from fmnist_exp.muon import muon

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


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
    report, fits = benchmark("train_report"), benchmark("train_fits")
    assert report.verdicts({}) == []
    found = {
        ("platform", "cnn_fast"): {0: fits.Reached(80, 0.934, 0.93), 2: fits.Reached(84, 0.932, 0.93)},
        ("stock", "cnn_fast"): {0: fits.Reached(170, 0.930, 0.93), 1: fits.Reached(900, 0.934, 0.93)},
        ("peer", "deep_cnn_keras"): {2: fits.Reached(1200, 0.93, 0.93)},
    }
    assert report.verdicts(found) == [
        ("cnn_fast: 93.30% on the test set, wanted 93.0%", True),
        ("deep_cnn (peer): 14.3 times as long as cnn_fast, n = 1, wanted 15", False),
        ("cnn_fast (stock): 2.1 times as long as cnn_fast, n = 1, wanted 2", True),
        ("bfloat16 and float32: 0.10 points apart on the test set, wanted 0.22, one standard error", True),
    ]


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
    assert (fits.reached(epochs, 0.93).seconds, fits.reached(epochs, 0.93).test_accuracy) == (30, 0.931)
    assert fits.reached(epochs, 0.95).seconds == 40
    assert fits.reached([], 0.93) is None
