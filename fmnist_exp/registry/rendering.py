"""Render the templates in `templates/` as Markdown or HTML."""

import re
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fmnist_exp.tracking.redact import without_secrets

Syntax = Literal["markdown", "html"]


def render(template: str, syntax: Syntax, **values: object) -> str:
    """Return the document made from the file `template` in `templates/`, without secrets.

    The template gets the macros of the file that `syntax` names as `doc`; every value is escaped for that syntax.
    """
    environment = ENVIRONMENTS[syntax]
    doc = environment.get_template(f"{syntax}.jinja").module
    text = environment.get_template(f"{template}.jinja").render(doc=doc, **values)
    return without_secrets(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n")


def _escape_markdown(value: object) -> Markup:
    """Escape what Markdown would read as the border of a table's cell, as HTML, or as a new line."""
    if isinstance(value, Markup):  # the output of a macro
        return value
    return Markup(str(value).replace("|", "\\|").replace("<", "&lt;").replace("\n", " "))


def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda value, digits=1: f"{value:.{digits}%}"
    return environment


ENVIRONMENTS: dict[Syntax, Environment] = {"markdown": _environment(), "html": _environment()}
ENVIRONMENTS["markdown"].finalize = _escape_markdown
