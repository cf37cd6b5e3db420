"""Reads the commands and Python examples of the README, the contribution guide and docs/."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
HISTORY = {"log", "decisions"}  # folders whose pages describe their day
PROGRAMS = ("fmnist-exp ", "mlflow run ", "make ", "python -m ", "python docs/")
# in a sentence, `fmnist-exp NAME` and `-P a=…` stand for many commands
PLACEHOLDER = re.compile(r"…|\b[A-Z]{2,}\b(?!=)(?!_)")
NOT_RUN = re.compile(r"<!-- not run: .+ -->")


@dataclass(frozen=True)
class Example:
    """A block of a page, or a piece of code in a sentence."""

    page: str
    line: int
    kind: str  # "shell" for an indented or unmarked block, "sentence", else the language of the block
    text: str
    runs: bool  # False after a comment <!-- not run: reason -->

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def examples() -> list[Example]:
    """Return the examples of all pages."""
    pages = [page for page in PAGES if not HISTORY.intersection(page.relative_to(ROOT).parts)]
    return [example for page in pages for example in read(page.read_text(), str(page.relative_to(ROOT)))]


def read(text: str, page: str) -> Iterator[Example]:
    """Yield the examples of a page in Markdown."""
    runs = True
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        line = token.map[0] + 1 if token.map else 0
        if token.type in ("fence", "code_block"):
            yield Example(page, line, token.info.strip() or "shell", token.content, runs)
        for child in token.children or []:
            if child.type == "code_inline":
                yield Example(page, line, "sentence", child.content, True)
        if token.type == "html_block":
            runs = not NOT_RUN.search(token.content)
        elif token.level == 0 or token.type in ("fence", "code_block"):
            runs = True


def commands(example: Example) -> list[list[str]]:
    """Return the words of each command that a test can check."""
    lines = example.text.replace("\\\n", " ").splitlines()
    if example.kind == "sentence":
        lines = [line for line in lines if not PLACEHOLDER.search(line)]
    elif example.kind not in ("shell", "sh", "bash", "console"):
        return []
    found = [line.strip().removeprefix("$ ") for line in lines]
    found = [line.rstrip("'") if line.count("'") % 2 else line for line in found]  # the last line of a quoted script
    return [shlex.split(line, comments=True) for line in found if line.startswith(PROGRAMS)]
