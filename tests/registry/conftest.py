"""A store with two versions for the tests of the gate, and what makes these tests quick."""

import pytest
from support import gates

from fmnist_exp.export import checksums
from fmnist_exp.registry import gate, smoke, versions
from fmnist_exp.serving import predictor
from fmnist_exp.tracking import store


@pytest.fixture(scope="module")
def client(shared_store):
    """Connect to a store that all tests of a file share."""
    return store.connect()


@pytest.fixture(scope="module")
def weak(client):
    """Register the first version, which is better than a logistic regression that stops early."""
    return gates.new_version(client, gates.WEAK)


@pytest.fixture(scope="module")
def strong(client, weak):
    """Register a version that is better than the weak one."""
    return gates.new_version(client, gates.STRONG)


@pytest.fixture
def answered(monkeypatch):
    """The real request takes seconds: one test sends it, the others take the predictor's word."""
    sent = []

    def request(folder, image):
        sent.append(checksums.digest(folder))
        probabilities = predictor.load(folder / "data").probabilities(image[None])[0]
        return {f"p{label}": float(value) for label, value in enumerate(probabilities)}

    monkeypatch.setattr(smoke, "request", request)
    return sent


@pytest.fixture
def low_floor(monkeypatch):
    """Stop the logistic regression early: it then costs a second, and the weak model is better."""
    monkeypatch.setattr(gate, "FLOOR_ITERATIONS", 3)


@pytest.fixture
def no_champion(client):
    """Forget the champion after each test."""
    yield
    if client.search_registered_models():
        client.delete_registered_model_alias(versions.NAME, versions.CHAMPION)
        client.set_registered_model_tag(versions.NAME, "champions", "")
