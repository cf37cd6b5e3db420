import jinja2
import pytest

from fmnist_exp.registry import rendering
from fmnist_exp.registry.rendering import render

TEMPLATE = """
{% call doc.document(title) %}
{{ doc.heading("A & B") }}
{% call doc.paragraph() %}
{{ text }}
{% endcall %}
{{ doc.points(["one", "two"]) }}
{{ doc.table(["name", "value"], [("a", "1"), ("b", "2|3")]) }}
{{ doc.facts([("a", "1")]) }}
{{ doc.picture("figure.png", 'a "picture"', "data:image/png;base64,AAAA") }}
{% call doc.code("python") %}
load("{{ text }}")
{% endcall %}
{% endcall %}
"""
VALUES = {"title": "<script>", "text": "1 < 2 | 3\n4"}


@pytest.fixture(autouse=True)
def template(monkeypatch):
    for environment in rendering.ENVIRONMENTS.values():
        mine = jinja2.ChoiceLoader([environment.loader, jinja2.DictLoader({"example.jinja": TEMPLATE})])
        monkeypatch.setattr(environment, "loader", mine)


def test_markdown():
    assert render("example", "markdown", **VALUES).split("\n\n") == [
        "# &lt;script&gt;",
        "## A &amp; B",
        "1 &lt; 2 \\| 3 4",
        "- one\n- two",
        "| name | value |\n| --- | ---: |\n| a | 1 |\n| b | 2\\|3 |",
        "|  |  |\n| --- | --- |\n| a | 1 |",
        '![a "picture"](figure.png)',
        '```python\nload("1 &lt; 2 \\| 3 4")\n```\n',
    ]


def test_html_is_one_file_and_escapes():
    page = render("example", "html", **VALUES)
    assert "<script" not in page
    assert "<h2>A &amp; B</h2>" in page
    assert "<li>one</li>" in page
    assert "<th>name</th>" in page
    assert 'src="data:image/png;base64,AAAA"' in page
    assert 'alt="a &#34;picture&#34;"' in page
    assert "http:" not in page
    assert "https:" not in page


def test_a_missing_value_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match="text"):
        render("example", "html", title="")


def test_secrets_are_blanked_out():
    assert "user" not in render("example", "markdown", title="", text="http://user:password@host/")
