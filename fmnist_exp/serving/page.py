"""The page to try the model: one HTML document, put together from the files in `web/`."""

import base64
import functools
from pathlib import Path

FOLDER = Path(__file__).parent / "web"
POLICY = (
    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:;"
    b" connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", POLICY),
]


@functools.cache
def html() -> bytes:
    """Return the document, with its style, its scripts and the sample pictures inside."""
    text = (FOLDER / "page.html").read_text(encoding="utf-8")
    for name in ("page.css", "picture.js", "page.js"):
        text = text.replace(f"/* {name} */", (FOLDER / name).read_text(encoding="utf-8"))
    samples = base64.b64encode((FOLDER / "samples.png").read_bytes()).decode()
    return text.replace("{samples}", f"data:image/png;base64,{samples}").encode()
