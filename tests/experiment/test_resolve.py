"""`resolve` refuses what cannot be run, and replaces aliases and `auto`."""

import mlflow
import pytest

from fmnist_exp.backend import hardware
from fmnist_exp.backend.hardware import Bfloat16
from fmnist_exp.config import files
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.errors import RequestError
from fmnist_exp.experiment import resolve
from fmnist_exp.tracking import run as runs
from fmnist_exp.training.precision import Choice

CONFIG = files.override(ExperimentConfig(), {"name": "tiny", "model.family": "mlp", "model.widths": [8]})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training.batch_size": 601}, r"training\.batch_size=601: must be at most 600"),
        ({"model.family": "mpl"}, "did you mean 'mlp'"),
    ],
)
def test_what_the_images_cannot_serve_is_refused_before_a_store_is_made(tmp_path, monkeypatch, small, changes, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=words):
        resolve.resolve(files.override(CONFIG, changes), small)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.frozen": 2}, r"model\.frozen=2: must be below 2"),
        ({"model.warm_start": "runs:/nothing"}, "its run 'nothing'"),
    ],
)
def test_what_the_network_or_the_store_cannot_serve_is_refused_before_a_run_starts(shared_store, small, changes, words):
    client = mlflow.MlflowClient()
    before = len(client.search_runs(["0"]))
    with pytest.raises(RequestError, match=words):
        resolve.resolve(files.override(CONFIG, changes), small, client)
    assert len(client.search_runs(["0"])) == before


def test_a_resolved_experiment_is_left_as_it_is(shared_store, small):
    fixed = files.override(CONFIG, {"training.precision": "float32"})
    resolved = resolve.resolve(fixed, small)
    assert (resolved.config, resolved.choice) == (fixed, None)


def test_a_slow_precision_is_used_with_one_warning(shared_store, small, monkeypatch, caplog):
    monkeypatch.setattr(hardware, "bfloat16", lambda: Bfloat16(False, "this processor has none"))
    for named in ("auto", "float32"):
        resolve.resolve(files.override(CONFIG, {"training.precision": named}), small)
    assert not caplog.records
    config = resolve.resolve(files.override(CONFIG, {"training.precision": "bfloat16"}), small).config
    assert config.training.precision == "bfloat16"
    (record,) = caplog.records
    assert record.getMessage() == (
        "training.precision=bfloat16 may take several times as long as float32: this processor has none"
    )


@pytest.mark.parametrize("named", ["auto", "measure"])
def test_a_remembered_precision_is_not_chosen_again(shared_store, small, named):
    opened = files.override(CONFIG, {"training.precision": named})
    assert resolve.resolve(opened, small, keep_auto=True).config == opened
    config, choice = resolve.choose_precision(opened, small, Choice("bfloat16", "it was chosen before"))
    assert config.training.precision == choice.precision == "bfloat16"
    run = runs.start_run(mlflow.MlflowClient(), "tune", "search", "x")
    resolve.log_choice(run, choice)
    assert run.delivered()
    found = mlflow.MlflowClient().get_run(run.id).data
    assert found.tags["fmnist.precision"] == "bfloat16"
    assert found.tags["fmnist.precision_reason"] == "it was chosen before"
    assert not any("precision" in name or "per_second" in name for name in found.metrics)
