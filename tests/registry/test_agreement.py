"""F4: a refit serves only if it gives the answers of the network that was judged in its place.

Every network is fitted on the real images, and the collapsed ones have really collapsed.
"""

import numpy as np
import pytest

from fmnist_exp.config.files import override
from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST, Split
from fmnist_exp.errors import RequestError
from fmnist_exp.experiment import run as experiment_run
from fmnist_exp.registry import agreement, lineage, versions
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store
from fmnist_exp.training import fit as fitting

LINEAR = {"model.family": "linear", "training.epochs": 2, "training.batch_size": 500, "training.precision": "float32"}


def zeroed(model, config, data, callbacks):
    """Fit a network and lose its weights: its loss is finite, and it gives every class the same probability."""
    fitted = fitting.fit(model, config, data, callbacks)
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    return fitted


def mislabelled(model, config, data, callbacks):
    """Fit a network on labels that name another class: its loss falls as usual."""
    wrong = Split("train", data.train.images, (data.train.labels + 1) % 10)
    other = FashionMNIST(wrong, data.validation, data.test, data.source)
    return fitting.fit(model, config, other, callbacks)


def logged(client, data, fields, fit=fitting.fit):
    config = override(ExperimentConfig(), {**LINEAR, **fields})
    with runs.closing(runs.start_run(client, "train", "linear", "linear")) as run:
        return experiment_run.run_experiment(config, data, run, score_test=False, fit=fit)


@pytest.fixture(scope="module")
def client(shared_store):
    return store.connect()


@pytest.fixture(scope="module")
def trial(client, data):
    return logged(client, data, {})


@pytest.fixture(scope="module")
def refitted(client, data, trial):
    """Return a function that logs and registers a refit of the trial, and returns its lineage."""

    def make(fit):
        nothing = {"data.validation_fraction": 0, "data.gate_fraction": 0}
        outcome = logged(client, data.without_holdout(), nothing, fit)
        version = versions.register(client, outcome.model_id, outcome.run_id, {"refit_of": trial.run_id})
        return lineage.trace(client, version)

    return make


@pytest.fixture(scope="module")
def healthy(refitted):
    return refitted(fitting.fit)


def test_a_refit_of_the_same_setting_agrees(healthy, data):
    found = agreement.measure(healthy, data.validation)
    assert found.reason is None
    assert found.images == len(data.validation.labels)
    assert agreement.LEAST <= found.share <= 1
    assert found.equal <= found.held
    assert f"{found.share:.1%} (required: 95%)" in found.sentence


@pytest.mark.parametrize("fit", [zeroed, mislabelled])
def test_a_collapsed_refit_is_refused(refitted, data, fit):
    found = agreement.measure(refitted(fit), data.validation)
    assert found.share < 0.5
    assert found.reason.startswith("not the network that was judged: the refit answers as the judged network on ")


def test_a_refit_that_knows_the_labels_differs_only_where_the_judged_network_errs(data):
    labels = data.validation.labels
    judged = np.where(np.arange(len(labels)) % 10 == 0, (labels + 1) % 10, labels)  # 90% accuracy
    found = agreement.compare(labels, judged, data.validation)
    assert (found.equal / found.images, found.share, found.reason) == (pytest.approx(0.9), 1.0, None)


def test_a_version_that_was_judged_itself_needs_no_agreement(client, trial, data):
    version = versions.register(client, trial.model_id, trial.run_id, {})
    assert agreement.measure(lineage.trace(client, version), data.validation) is None


def test_without_unseen_images_nothing_can_be_compared(healthy, data):
    with pytest.raises(RequestError, match=r"no image is left .* data\.gate_fraction"):
        agreement.measure(healthy, data.without_holdout().validation)


def test_a_refit_is_described_by_its_own_run(client, healthy, trial):
    assert healthy.run.info.run_id == healthy.version.run_id != trial.run_id
    assert (healthy.served.run, healthy.held_out.run.info.run_id) == (healthy.run, trial.run_id)
