"""The history of champions, in a store where versions have no files."""

import pytest

from fmnist_exp.errors import RequestError
from fmnist_exp.registry import champions, versions
from fmnist_exp.tracking import store as tracking_store


@pytest.fixture
def client(store):
    client = tracking_store.connect()
    client.create_registered_model(versions.NAME)
    for _ in range(3):
        client.create_model_version(versions.NAME, "nowhere")
    return client


def promote(client, *numbers):
    for number in numbers:
        champions.set_champion(client, versions.find(client, number), f"because {number}")


def test_a_promotion_is_written_on_both_versions(client):
    promote(client, "1", "2")
    former, present = (versions.find(client, number).tags for number in "12")
    assert present["champion_why"] == "because 2"
    assert (former["champion_after"], present["champion_after"]) == ("none", "1")
    assert former["champion_followed_by"] == "2"
    assert former["champion_until"] == present["champion_since"]
    assert versions.aliases(client)["champion"] == "2"


def test_back_and_back_again(client):
    promote(client, "1", "2", "3")
    again = champions.go_back()
    assert (again.version, again.since) == ("2", "again")
    tags = versions.find(client, "2").tags
    assert tags["champion_why"] == "back from version 3"
    assert "champion_until" not in tags
    assert champions.go_back().version == "1"
    with pytest.raises(RequestError, match="no champion before version 1"):
        champions.go_back()
    promote(client, "3")
    assert champions.go_back().version == "1"


def test_the_alias_decides_who_is_champion(client):
    client.set_registered_model_alias(versions.NAME, "champion", "1")
    promote(client, "2")
    assert champions.history(client) == ["1", "2"]
    client.set_registered_model_alias(versions.NAME, "champion", "3")
    assert champions.history(client) == ["1", "2", "3"]
    assert champions.go_back().version == "2"


def test_deleted_versions_are_skipped(client):
    promote(client, "1", "2", "1")
    client.delete_model_version(versions.NAME, "2")
    with pytest.raises(RequestError, match="no champion before version 1"):
        champions.go_back()
    promote(client, "3")
    assert champions.go_back().version == "1"


def test_without_a_champion_there_is_nothing_to_go_back_to(client):
    assert champions.history(client) == []
    with pytest.raises(RequestError, match="no alias 'champion'"):
        champions.go_back()
