"""The table of docs/security.md names tests that exist, and at least one of each file of attacks."""

import ast
import re

import pytest
from support.documents import ROOT

PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")
ROWS = [row.strip("|").split(" | ") for row in PAGE[PAGE.index("| attack |") :].splitlines()[2:]]
NAMED = [re.fullmatch(r"`(test_\w+\.py)::(test_\w+)`", row[-1].strip()) for row in ROWS]
FILES = {file.name: file for file in (ROOT / "tests").rglob("test_*.py")}


def test_every_row_is_complete_and_names_a_test():
    assert ROWS
    assert all(len(row) == 4 and all(cell.strip() for cell in row) for row in ROWS)
    assert all(NAMED), [row for row, name in zip(ROWS, NAMED, strict=True) if not name]


def test_every_file_of_attacks_is_in_the_table():
    attacks = {name for name, file in FILES.items() if file.parent.name == "security"}
    assert attacks <= {found[1] for found in NAMED if found}


@pytest.mark.parametrize("file", sorted({found[1] for found in NAMED if found}))
def test_every_test_of_the_table_exists(file):
    tree = ast.parse(FILES[file].read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {found[2] for found in NAMED if found and found[1] == file} <= defined
