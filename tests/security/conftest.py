"""The summary of all attacks: one line for each test with the mark `attack`, and the numbers at the end.

`@pytest.mark.attack("a Lambda layer", entry="serve, evaluate", result="refused in one sentence")` says what a test
tries, which entry points it tries, and what happens if the test passes. A test without the mark is no attack, for
example the test that an honest model still loads. `make attacks` prints the summary.
"""

from collections import Counter
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write the attack, its entry points and its result into the report, which travels from xdist's workers."""
    report = yield
    if mark := item.get_closest_marker("attack"):
        (attack,) = mark.args
        case = f" [{item.callspec.id}]" if hasattr(item, "callspec") else ""
        report.user_properties.append(("attack", (f"{attack}{case}", mark.kwargs["entry"], _result(report, mark))))
    return report


def _result(report: pytest.TestReport, mark: pytest.Mark) -> str:
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        return f"not tried: {str(reason).removeprefix('Skipped: ')}"
    return str(mark.kwargs.get("result", "refused")) if report.passed else f"GOT THROUGH: see {report.nodeid}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a line for each attack, and the numbers."""
    lines: dict[str, tuple[str, str, str]] = {}
    states: dict[str, str] = {}
    for state in ("passed", "skipped", "failed", "error"):  # a failure in the set-up or afterwards counts as well
        for report in terminalreporter.stats.get(state, []):
            for name, value in report.user_properties:
                if name == "attack":
                    lines[report.nodeid], states[report.nodeid] = value, state
    if not lines:
        return
    widths = [min(60, max(len(row[column]) for row in lines.values())) for column in (0, 1)]
    terminalreporter.section("attacks")
    for attack, entry, result in (lines[name] for name in sorted(lines)):
        terminalreporter.write_line(f"{attack:<{widths[0]}}  {entry:<{widths[1]}}  {result}")
    count = Counter(states.values())
    through = count["failed"] + count["error"]
    terminalreporter.write_line(
        f"{len(lines)} attacks: {count['passed']} stopped, {through} got through, {count['skipped']} not tried"
    )
