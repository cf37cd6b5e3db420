"""Texts that are shown and stored name no passwords."""

import pytest

from fmnist_exp.tracking import redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@host:5000/x", "https://***@host:5000/x"),
        ("postgresql://me:secret@host/db", "postgresql://***@host/db"),
        ("https://token@host and http://a:b@c", "https://***@host and http://***@c"),
        ("https://me:sec@ret@host/x", "https://***@host/x"),
        ("https://host/path@2x.png", "https://host/path@2x.png"),
        ("someone@example.org", "someone@example.org"),
    ],
)
def test_secrets_are_blanked(text, shown):
    assert redact.without_secrets(text) == shown


def test_the_first_line_of_an_error():
    assert redact.first_line(ValueError("http://me:secret@host/ is gone\nand more")) == "http://***@host/ is gone"
    assert redact.first_line(ZeroDivisionError()) == "ZeroDivisionError"
