"""A run that leaves the precision open logs the one that was chosen, and can be repeated with it."""

import numpy as np
import pytest
from support.experiments import NORMALIZED

from fmnist_exp.config import files
from fmnist_exp.config.fields import flatten
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.experiment.resolve import log_choice, resolve
from fmnist_exp.registry import lineage
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store


@pytest.mark.parametrize("named", ["auto", "measure"])
def test_the_run_names_the_precision_and_can_be_repeated(shared_store, small, named, monkeypatch, tmp_path):
    """The choice does not change the numbers: a run that names the chosen precision gives the same ones."""
    monkeypatch.setenv("FMNIST_EXP_CACHE", str(tmp_path))
    config = files.override(NORMALIZED, {"training.precision": named})
    client = store.connect()
    with runs.closing(runs.start_run(client, "train", "auto", "auto")) as run:
        resolved = resolve(config, small, client)
        log_choice(run, resolved.choice)
        first = experiment_run.run_experiment(resolved.config, small, run, score_test=False)
    found = client.get_run(run.id)
    used = found.data.tags["fmnist.precision"]
    assert used == found.data.params["training.precision"]
    assert found.data.tags["fmnist.precision_reason"] == resolved.choice.reason
    metrics = found.data.metrics
    speeds = {name: metrics[f"{name}_images_per_second"] for name in ("float32", "bfloat16")} if named != "auto" else {}
    assert (used if named == "auto" else max(speeds, key=speeds.get)) == used
    assert ("precision_seconds" in metrics) == (named == "measure")
    logged = files.parse(store.download_text(f"runs:/{run.id}/experiment.yaml"), "logged")
    assert flatten(logged) == flatten(NORMALIZED) | {"training.precision": used}
    with runs.closing(runs.start_run(client, "train", "again", "auto")) as again:
        second = experiment_run.run_experiment(logged, small, again, score_test=False)
    models = [lineage.find(client, f"runs:/{outcome.run_id}").load_keras() for outcome in (first, second)]
    for ours, theirs in zip(*(model.get_weights() for model in models), strict=True):
        assert np.array_equal(ours, theirs)
    assert "fmnist.precision" not in client.get_run(again.id).data.tags  # there was nothing to choose
