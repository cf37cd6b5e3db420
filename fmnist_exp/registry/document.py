"""A short document, written once and rendered as Markdown and as one HTML file without external assets."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2730; background: #fff; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin-bottom: .3rem; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; padding-bottom: .2rem; border-bottom: 1px solid #d5dde3; }
p { max-width: 46rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #e6ebef; }
th:first-child, td:first-child { text-align: left; }
th { border-bottom: 2px solid #b8c4cd; font-weight: 600; white-space: nowrap; }
table.facts td { text-align: left; overflow-wrap: anywhere; vertical-align: top; }
table.facts td:first-child { color: #52616d; white-space: nowrap; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; }
figcaption { font-size: .9rem; color: #52616d; }
@media (prefers-color-scheme: dark) {
  body { color: #dbe3ea; background: #14191d; }
  h2, th, td { border-color: #39444d; }
  table.facts td:first-child, figcaption { color: #9fadb8; }
  img { background: #fff; }
}
"""


@dataclass(frozen=True)
class Heading:
    """The title of a section."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Plain text."""

    text: str


@dataclass(frozen=True)
class Points:
    """A list with bullets."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows of text below a header; the first column names the row. Without a header: facts, a name and a value each."""

    rows: Sequence[Sequence[str]]
    header: Sequence[str] = ()


@dataclass(frozen=True)
class Picture:
    """A PNG in the document's folder."""

    file: str
    caption: str


Block = Heading | Paragraph | Points | Table | Picture


@dataclass(frozen=True)
class Document:
    """A title and what stands below it."""

    title: str
    blocks: Sequence[Block]


def to_markdown(document: Document) -> str:
    """As GitHub and MLflow show it; pictures are linked."""
    return "\n\n".join([f"# {_plain(document.title)}", *map(_markdown, document.blocks)]) + "\n"


def to_html(document: Document, folder: Path) -> str:
    """One file; pictures, which lie in `folder`, are inside it."""
    body = "\n".join(_html(block, folder) for block in document.blocks)
    title = html.escape(document.title)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {_plain(text)}"
        case Paragraph(text):
            return _plain(text)
        case Points(items):
            return "\n".join(f"- {_plain(item)}" for item in items)
        case Picture(file, caption):
            return f"![{_plain(caption)}]({file})"
        case Table(rows, header):
            names = header or ("", "")
            rule = ["---", *["---:" if header else "---"] * (len(names) - 1)]
            return "\n".join("| " + " | ".join(map(_plain, row)) + " |" for row in (names, rule, *rows))


def _html(block: Block, folder: Path) -> str:
    match block:
        case Heading(text):
            return f"<h2>{html.escape(text)}</h2>"
        case Paragraph(text):
            return f"<p>{html.escape(text)}</p>"
        case Points(items):
            return "<ul>" + "".join(f"<li>{html.escape(item)}</li>" for item in items) + "</ul>"
        case Picture(file, caption):
            content = base64.b64encode((folder / file).read_bytes()).decode("ascii")
            said = html.escape(caption)
            image = f'<img src="data:image/png;base64,{content}" alt="{said}">'
            return f"<figure>{image}<figcaption>{said}</figcaption></figure>"
        case Table(rows, header):
            return _html_table(rows, header)


def _html_table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>\n"

    head = f"<thead>{line(header, 'th')}</thead>" if header else ""
    kind = "" if header else ' class="facts"'
    body = "".join(line(row, "td") for row in rows)
    return f'<div class="scroll"><table{kind}>{head}<tbody>{body}</tbody></table></div>'


def _plain(text: str) -> str:
    """Text that Markdown neither reads as a table's border nor as HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
