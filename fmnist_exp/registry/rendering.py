"""Render the templates in `templates/` as Markdown or HTML."""

import base64
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fmnist_exp.tracking import escape
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


def content_security_policy(scripts: Iterable[str] = (), styles: Iterable[str] = ()) -> str:
    """Return the policy of a page that runs and applies only these texts of its own, and needs no network.

    A style sheet that is empty may be filled by the scripts of the page. The policy cannot forbid frames around the
    page, because a page in a file can state its policy only in a meta element, where browsers ignore that rule.
    """
    sources = {"script-src": scripts, "style-src": styles}
    allowed = {name: " ".join(map(_source, texts)) or "'none'" for name, texts in sources.items()}
    return (
        f"default-src 'none'; script-src {allowed['script-src']}; style-src {allowed['style-src']};"
        " img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _escape_markdown(value: object) -> Markup:
    """Escape a value that is no Markdown itself."""
    if isinstance(value, Markup):  # the output of a macro
        return value
    return Markup(escape.markdown(str(value)))


def _environment() -> Environment:
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["content_security_policy"] = content_security_policy
    environment.filters["percent"] = lambda value, digits=1: f"{value:.{digits}%}"
    return environment


ENVIRONMENTS: dict[Syntax, Environment] = {"markdown": _environment(), "html": _environment()}
ENVIRONMENTS["markdown"].finalize = _escape_markdown
