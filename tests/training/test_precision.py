"""`precision.choose` asks the hardware for `auto`, and measures once per processor and network for `measure`."""

import pytest

from fmnist_exp.backend import hardware
from fmnist_exp.backend.hardware import Bfloat16
from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.errors import RequestError
from fmnist_exp.training import precision, speed

FAST, SLOW = Bfloat16(True, "AMD EPYC has avx512_bf16"), Bfloat16(False, "the processor has none")
OWN = {"model.family": "mlp", "model.widths": [8], "model.batch_norm": True, "training.batch_size": 50}
CONFIG = files.override(ExperimentConfig(), OWN)
MEASURE = files.override(CONFIG, {"training.precision": "measure"})


def test_auto_is_the_default_and_follows_the_hardware(small, monkeypatch):
    assert ExperimentConfig().training.precision == "auto"
    for found, expected in ((FAST, "bfloat16"), (SLOW, "float32")):
        monkeypatch.setattr(hardware, "bfloat16", lambda found=found: found)
        choice = precision.choose(CONFIG, small)
        assert (choice.precision, choice.reason, choice.metrics()) == (expected, found.reason, {})


@pytest.mark.parametrize("named", ["auto", "measure"])
@pytest.mark.parametrize(
    "fields", [{"model.family": "naive"}, {"model.family": "linear"}, {"model.members": ["models:/a", "models:/b"]}]
)
def test_what_has_no_hidden_layer_to_train_gets_float32(small, monkeypatch, named, fields):
    monkeypatch.setattr(hardware, "bfloat16", lambda: FAST)
    choice = precision.choose(files.override(ExperimentConfig(), {"training.precision": named, **fields}), small)
    assert (choice.precision, choice.reason) == ("float32", "there is no hidden layer to train")


def test_auto_leaves_networks_without_batch_normalization_in_float32(small, monkeypatch):
    monkeypatch.setattr(hardware, "bfloat16", lambda: FAST)
    choice = precision.choose(files.override(CONFIG, {"model.batch_norm": False}), small)
    assert (choice.precision, choice.reason) == ("float32", "without batch normalization, bfloat16 may cost accuracy")


def test_measure_takes_the_faster_precision_and_measures_once(small, monkeypatch, tmp_path):
    monkeypatch.setenv("FMNIST_EXP_CACHE", str(tmp_path))
    fast = {"training.steps_per_execution": 1}  # several make a loop, which takes TensorFlow long to trace
    config = files.override(MEASURE, fast)
    first = precision.choose(config, small)
    assert first.images_per_second[first.precision] == max(first.images_per_second.values())
    assert first.reason.startswith("measured ")
    assert first.metrics().keys() == {"float32_images_per_second", "bfloat16_images_per_second", "precision_seconds"}
    assert 0 < first.seconds == first.metrics()["precision_seconds"]
    monkeypatch.setattr(speed, "measure", None)  # it would fail
    again = precision.choose(config, small)
    assert again.seconds is None
    assert (again.precision, again.reason, again.images_per_second) == (
        first.precision,
        first.reason,
        first.images_per_second,
    )


def test_only_bfloat16_can_be_slow(monkeypatch):
    monkeypatch.setattr(hardware, "bfloat16", lambda: SLOW)
    assert (precision.slowness("float32"), precision.slowness("bfloat16")) == ("", "the processor has none")
    monkeypatch.setattr(hardware, "bfloat16", lambda: FAST)
    assert precision.slowness("bfloat16") == ""


def test_unknown_precision_in_an_experiment_is_refused():
    words = r"^training\.precision='float16': must be one of auto, measure, float32, bfloat16$"
    with pytest.raises(RequestError, match=words):
        files.override(ExperimentConfig(), {"training.precision": "float16"})


@pytest.mark.parametrize("file", sorted(files.EXPERIMENTS.glob("*.yaml")), ids=lambda file: file.stem)
def test_no_shipped_experiment_names_a_precision(file):
    assert files.load(str(file)).training.precision == "auto"
    assert "precision:" not in file.read_text()
