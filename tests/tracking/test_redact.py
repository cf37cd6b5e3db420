"""Texts that are shown and stored name no passwords."""

import json
import os
from html import escape
from types import SimpleNamespace
from urllib.parse import quote, quote_plus

import pytest

from fmnist_exp.tracking import redact

SECRET = "Can/ary #1%41 x@y'z&w"  # every character that separates parts of an address


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch) -> None:
    """Forget the addresses of other tests; and pytest's own variable has the names of these tests, with addresses."""
    monkeypatch.setattr(redact, "_told", set())
    monkeypatch.setattr(redact, "os", SimpleNamespace(environ={}, path=os.path))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@host:5000/x", "https://***@host:5000/x"),
        ("postgresql://me:secret@host/db", "postgresql://***@host/db"),
        ("https://token@host and http://a:b@c", "https://***@host and http://***@c"),
        ("https://me:sec@ret@host/x", "https://***@host/x"),
        ("https://host/path@2x.png", "https://host/path@2x.png"),
        ("someone@example.org", "someone@example.org"),
        ("https://me:p/w d@host/api failed", "https://***@host/api failed"),
        ("http://host:5000 is not me@host", "http://host:5000 is not me@host"),
        ("http://[::1]:5000/a@b", "http://[::1]:5000/a@b"),
        ("http://host/db?user=me&password=a%2Fb&x=1", "http://host/db?user=me&password=***&x=1"),
        ("http://host/db?sslpassword=a;token=b c", "http://host/db?sslpassword=***;token=*** c"),
        ("host=db password='a b' user=me", "host=db password=*** user=me"),
        ("{'access_token': \"a\"}", "{'access_token': '***'}"),
        ("Authorization: Basic bWU6cHc=", "Authorization: Basic ***"),
        ("https://b/k?X-Amz-Signature=1f&X-Amz-Date=2", "https://b/k?X-Amz-Signature=***&X-Amz-Date=2"),
        ("the password: none was given", "the password: none was given"),
    ],
)
def test_secrets_of_addresses_that_nobody_announced_are_blanked(text, shown):
    assert redact.without_secrets(text) == shown


SPELLINGS = {
    "raw": SECRET,
    "quoted": quote(SECRET, safe=""),
    "in a path": quote(SECRET),
    "in lower case": quote(SECRET, safe="").replace("%2F", "%2f"),
    "in a form": quote_plus(SECRET),
    "quoted twice": quote(quote(SECRET, safe=""), safe=""),
    "in JSON": json.dumps({"key": SECRET}),
    "in Python": repr(SECRET),
    "in HTML": escape(SECRET),
    "in a shell": redact.shlex.quote(SECRET),
}


@pytest.mark.parametrize("given", ["raw", "quoted", "in a form"])
@pytest.mark.parametrize("place", ["http://me:{}@host:5000/x", "postgresql://host/db?user=me&sslpassword={}"])
def test_a_secret_that_is_known_is_found_in_every_spelling(given, place, monkeypatch):
    if "?" in place and given == "raw":
        pytest.skip("a raw & ends a parameter")
    assert redact.remember(place.format(SPELLINGS[given]))
    for name, text in SPELLINGS.items():
        assert "ary" not in redact.without_secrets(f"(a text) {text}, {name}"), name


@pytest.mark.parametrize(
    "name",
    ["MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PGPASSWORD"],
)
def test_the_environment_is_known(name):
    redact.os.environ = {name: SECRET, "MLFLOW_TRACKING_USERNAME": "me"}
    for text in SPELLINGS.values():
        assert "ary" not in redact.without_secrets(text)


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_URI", "MLFLOW_S3_ENDPOINT_URL", "https_proxy", "FMNIST_EXP_STORAGE"])
def test_the_addresses_of_the_environment_are_known(name):
    redact.os.environ = {name: f"scheme://me:{SECRET}@host/x"}
    assert "ary" not in redact.without_secrets(f"no password {SECRET} in any text")


def test_pieces_of_a_password_are_secrets_if_it_separates_the_parts_of_an_address():
    redact.remember("postgresql://me:hunter2@swordfish/pike9@host:5432/db")
    assert redact.without_secrets('no host "swordfish", "hunter2" or "pike9"') == 'no host "***", "***" or "***"'
    assert redact.without_secrets("host:5432/db of me") == "host:5432/db of me"


def test_words_that_are_no_secret_stay_readable(tmp_path):
    (tmp_path / "key.pem").touch()
    redact.os.environ = {
        "TOKENIZERS_PARALLELISM": "false",
        "SHOW_TOKEN": "true",
        "X_TOKEN": "12",
        "AWS_ACCESS_KEY_ID": "minioadmin",
        "AWS_SECRET_ACCESS_KEY": "minioadmin",
        "FMNIST_EXP_SIGNING_KEY": str(tmp_path / "key.pem"),
        "MLFLOW_TRACKING_URI": "postgresql://mlflow:mlflow@host/mlflow",
        "MLFLOW_TRACKING_PASSWORD": "spring",
    }
    text = f"12 false true mlflow minioadmin offspring springs {tmp_path}/key.pem"
    assert redact.without_secrets(text) == text
    redact.os.environ |= {"PGUSER": "fmnist-svc9", "PGPASSWORD": "fmnist-svc9"}
    assert redact.without_secrets("user fmnist-svc9") == "user ***"
    assert redact.without_secrets("study spring; http://mlflow:mlflow@host") == "study ***; http://***@host"


def test_an_address_is_public_whoever_looks_at_it():
    address = "postgresql://me:swordfish@host/db?token=abc"
    redact.os.environ = {"MLFLOW_TRACKING_TOKEN": "swordfish"}
    shown = redact.public(address)
    redact.os.environ = {}
    assert redact.public(address.replace("me:swordfish", "you:other")) == redact.public(address.replace("abc", "d"))
    assert shown == redact.public(address)
    assert redact.public("http://host:5000") == "http://host:5000"


def test_a_command_says_that_something_is_missing():
    shown = redact.shell_command(["tune", "--storage", "postgresql://me:it's@host/db", "--study", "a b"])
    assert (
        shown
        == "tune --storage 'postgresql://***@host/db' --study 'a b'  # with the user and password in the place of ***"
    )
    assert redact.shell_command(["tune"]) == "tune"


def test_the_first_line_of_an_error():
    assert redact.first_line(ValueError("http://me:secret@host/ is gone\nand more")) == "http://***@host/ is gone"
    assert redact.first_line(ZeroDivisionError()) == "ZeroDivisionError"
