"""Descriptions and look-ups of versions, in a store where versions have no files."""

import pytest

from fmnist_exp.errors import RequestError
from fmnist_exp.registry import versions
from fmnist_exp.tracking import run as runs
from fmnist_exp.tracking import store as tracking_store

EARLIER = "Model card: Names the garment on a 28 × 28 grey image, one of ten."  # how earlier releases began


@pytest.fixture
def client(store):
    client = tracking_store.connect()
    client.create_registered_model(versions.NAME)
    return client


def new_version(client, description=None):
    return client.create_model_version(versions.NAME, "nowhere", description=description)


def described(client, version):
    return versions.find(client, str(version.version)).description


@pytest.mark.parametrize("before", [None, "", EARLIER], ids=["none", "empty", "earlier release"])
def test_a_version_is_described(before, client):
    version = new_version(client, before)
    versions.describe(client, version, {"test accuracy": "50.00% (40.38 to 59.62)"})
    text = described(client, version)
    assert "Test accuracy 50.00% (40.38 to 59.62); in parentheses the 95% intervals." in text
    assert "fmnist-exp serve --model models:/fashion-mnist/1" in text


@pytest.mark.parametrize("edited", [False, True])
def test_our_description_is_replaced_unless_a_person_changed_it(edited, client):
    version = new_version(client)
    versions.describe(client, version, {"test accuracy": "50.00%"})
    if edited:
        client.update_model_version(versions.NAME, version.version, f"{described(client, version)} And more.")
    versions.describe(client, version, {"test accuracy": "60.00%"}, card="the run")
    assert ("60.00%" in described(client, version)) == (not edited)


def test_a_person_s_description_stays(client):
    version = new_version(client, "mine")
    versions.describe(client, version, {})
    assert described(client, version) == "mine"


def test_tags_with_a_prefix_are_replaced(client):
    version = new_version(client)
    versions.tag(client, version, {"gate_a": 1, "gate_b": 2, "run_id": 3})
    versions.tag(client, version, {"gate_b": 4}, replacing="gate_")
    assert versions.find(client, "1").tags == {"gate_b": "4", "run_id": "3"}


@pytest.mark.parametrize("scored_by", ["training", "evaluation"])
def test_the_interval_of_the_test_accuracy_comes_from_the_run_that_scored_it(scored_by, client, small):
    trained, evaluated = (runs.start_run(client, kind, kind, "") for kind in ("train", "evaluate"))
    trained.log_inputs(small, {"training": small.train})
    (trained if scored_by == "training" else evaluated).log_inputs(small, {"test": small.test})
    for run in (trained, evaluated):
        run.close()
    version = client.create_model_version(versions.NAME, "nowhere", trained.id)
    assert versions.test_accuracy(client, version) == ""
    tags = {"test_accuracy": 0.5} if scored_by == "training" else {"test_accuracy": 0.5, "evaluated_by": evaluated.id}
    versions.tag(client, version, tags)
    assert versions.test_accuracy(client, versions.find(client, "1")) == "50.00% (43.14 to 56.86)"


def test_a_run_that_is_gone_leaves_the_test_accuracy_without_its_interval(client):
    version = client.create_model_version(versions.NAME, "nowhere", "0" * 32, tags={"test_accuracy": "0.5"})
    assert versions.test_accuracy(client, version) == "50.00%"


@pytest.mark.parametrize("reference", ["9", "nobody"])
def test_a_missing_version_names_those_that_exist(reference, client):
    client.set_registered_model_alias(versions.NAME, "champion", new_version(client).version)
    with pytest.raises(RequestError, match=r"versions: 1; aliases: champion \(version 1\)"):
        versions.find(client, reference)


def test_before_the_first_version(store):
    client = tracking_store.connect()
    assert versions.aliases(client) == {}
    assert versions.version_by_alias(client, "champion") is None
    with pytest.raises(RequestError, match="none is registered yet"):
        versions.find(client, "champion")
