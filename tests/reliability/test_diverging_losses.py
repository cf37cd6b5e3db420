"""Losses that become NaN or infinite under real commands: one sentence with advice, and a search that goes on."""

import mlflow
import pytest
from mlflow import MlflowClient

ADVICE = "; lower training.learning_rate"
EXPLODING = ["--training.optimizer", "sgd", "--model.l2", "1"]  # with a learning rate of 10
SPACE = "{training.learning_rate: {choices: [0.01, 10.0]}}"


@pytest.fixture
def store(tmp_path, new_database) -> tuple[dict, MlflowClient]:
    uri = new_database(tmp_path, str(tmp_path / "mlruns"))
    return {"folder": tmp_path, "MLFLOW_TRACKING_URI": uri}, mlflow.MlflowClient(uri)


def test_train_fails_with_advice(commands, tiny, store):
    options, client = store
    fields = [*EXPLODING, "--training.learning_rate", "10"]
    done = commands.run("train", "--experiment", str(tiny), *fields, **options)
    assert done.code == 1, done.printed
    assert done.error.startswith("the training loss became ")
    assert done.error.endswith(ADVICE)
    (run,) = client.search_runs(["0"])
    assert (run.info.status, run.data.tags["fmnist.error"]) == ("FAILED", done.error)
    assert client.search_logged_models(["0"]) == []


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_search_goes_on_with_the_next_setting(commands, tiny, store, workers):
    options, client = store
    fields = [*EXPLODING, "--search.space", SPACE, "--training.learning_rate", "0.01", "--n_trials", "4"]
    done = commands.run("tune", "--experiment", str(tiny), "--workers", workers, *fields, **options)
    assert done.code == 0, done.printed
    trials = client.search_runs(["0"], "tags.`fmnist.kind` = 'trial'")
    states = [run.data.tags["fmnist.trial_state"] for run in trials]
    assert set(states) == {"COMPLETE", "FAIL"}
    reasons = [run.data.tags["fmnist.error"] for run in trials if run.info.status == "FAILED"]
    assert len(reasons) == states.count("FAIL")
    assert all(reason.startswith("the training loss became ") and reason.endswith(ADVICE) for reason in reasons)
