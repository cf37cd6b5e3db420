"""The page to try the model: one HTML document, put together from the files in `web/`."""

import base64
import functools
import hashlib
import re
from pathlib import Path

FOLDER = Path(__file__).parent / "web"
HEADERS = [(b"content-type", b"text/html; charset=utf-8")]


@functools.cache
def html() -> bytes:
    """Return the document, with its style, its scripts and the sample pictures inside."""
    text = (FOLDER / "page.html").read_text(encoding="utf-8")
    for name in ("page.css", "picture.js", "page.js"):
        text = text.replace(f"/* {name} */", (FOLDER / name).read_text(encoding="utf-8"))
    samples = base64.b64encode((FOLDER / "samples.png").read_bytes()).decode()
    return text.replace("{samples}", f"data:image/png;base64,{samples}").encode()


@functools.cache
def policy() -> bytes:
    """Return the Content-Security-Policy of the document, which names its style and its script by their hashes."""
    style, script = (_hash(kind) for kind in ("style", "script"))
    return (
        f"default-src 'none'; style-src {style}; script-src {script}; img-src data: blob:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ).encode()


def _hash(kind: str) -> str:
    """Return the hash of the only element of this kind, as a policy names it."""
    (content,) = re.findall(rf"<{kind}>(.*?)</{kind}>".encode(), html(), re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"
