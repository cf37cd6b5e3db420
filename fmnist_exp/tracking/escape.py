"""Write texts from elsewhere, such as names and errors, so that whatever shows them shows the text and does no more.

A name that holds HTML, Markdown, a formula or the control characters of a terminal must not act on those who look at
it. HTML itself is escaped by the templates that write it.
"""

import html
import re
import unicodedata

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # with these begins what a spreadsheet computes
_MARKDOWN = re.compile(r"[\\`*\[\]|~#]|(?<!\w)_|_(?!\w)")  # an underscore within a word means nothing
_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's categories of control, format and line-breaking characters


def line(text: str) -> str:
    r"""Return the text on one line, with its control characters written as in Python, such as `\x1b` for escape."""
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _INVISIBLE
        else character
        for character in text
    )


def terminal(text: str) -> str:
    """Return the text for a terminal, where control characters could move the cursor, set colours or forge lines."""
    return text if text.isprintable() else re.sub(r"[^\n\t]+", lambda part: line(part[0]), text)


def markdown(text: str) -> str:
    """Return the text for a sentence or a table's cell in Markdown, on one line."""
    entities = html.escape(" ".join(text.split()), quote=False)
    return line(_MARKDOWN.sub(r"\\\g<0>", entities))


def plotly(text: str) -> str:
    """Return the text for a title, label or hover text of Plotly, which reads links and knows no entities of quotes."""
    return html.escape(text, quote=False)


def cell(value: object) -> object:
    """Return the cell of a CSV file, with an apostrophe in front of a text that a spreadsheet would compute."""
    if not isinstance(value, str) or not value.startswith(FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value
