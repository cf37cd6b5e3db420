"""The table of docs/reliability.md has a row for each fault, and names tests that exist."""

import ast
import re

import pytest
from support.documents import ROOT

PAGE = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
TABLE = PAGE[PAGE.index("| fault |") :].partition("\n\n")[0]
ROWS = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in TABLE.splitlines()[2:]]
NAMED = {test for row in ROWS for test in re.findall(r"`(test_\w+\.py)::(test_\w+)`", row[-1])}
FILES = {file.name: file for file in (ROOT / "tests").rglob("test_*.py")}
FAULTS = [  # words by which the row of each fault is known
    *("of a worker", "of the driver", "is away", "stays away", "while a run logs", "write one SQLite store"),
    *(
        "first use",
        "disk is full",
        "server's database",
        "Weights are cut",
        "checkpoint is cut",
        "studies is damaged",
        "left its run RUNNING",
    ),
    *("Ctrl-C and SIGTERM", "sent twice", "inside a trial", "is uploaded", "gzip", "CSV", "NaN and diverging"),
]


def test_every_fault_has_a_row_with_a_promise_and_a_test():
    assert all(len(row) == 3 and all(row) for row in ROWS)
    for fault in FAULTS:
        assert len([row for row in ROWS if fault in row[0]]) == 1, fault
    for row in ROWS:
        assert re.fullmatch(r"`test_\w+\.py::test_\w+`(, `test_\w+\.py::test_\w+`)*", row[-1]), row[-1]


def test_every_file_of_faults_is_in_the_table():
    faults = {name for name, file in FILES.items() if file.parent.name == "reliability"}
    assert faults <= {file for file, _ in NAMED}


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_every_test_of_the_table_exists(file):
    tree = ast.parse(FILES[file].read_text(encoding="utf-8"))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {test for named, test in NAMED if named == file} <= defined
