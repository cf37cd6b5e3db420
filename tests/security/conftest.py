"""Fixtures for several files of attacks, and the summary of all attacks: a line for each test with the mark `attack`.

`@pytest.mark.attack("a Lambda layer", entry="serve, evaluate", result="refused in one sentence")` says what a test
tries, which entry points it tries, and what happens if the test passes. A test without the mark is no attack, for
example the test that an honest model still loads. `make attacks` prints the summary.
"""

import functools
import gc
import logging
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator

import pytest
from support import canaries
from support.commands import OTHER, Command, Ran
from support.forgeries import Hostile, Victim

from fmnist_exp import cli
from fmnist_exp.tracking import redact


@pytest.fixture
def hooks_of_pytest() -> Iterator[None]:
    """Put back what the command line installs in its process."""
    before = sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning
    factory, told = logging.getLogRecordFactory(), set(redact._told)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    gc.enable()  # `serve` disables it
    logging.captureWarnings(False)
    sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning = before
    logging.setLogRecordFactory(factory)
    redact._told.clear()
    redact._told.update(told)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def command(hooks_of_pytest, capfd, tmp_path, monkeypatch) -> Iterator[Command]:
    """Run commands in this process, in a folder of their own, with canaries in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    written = []

    def run(*words: str, **variables: str) -> Ran:
        with canaries.environment(**{**OTHER, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", **variables}):
            logs = logging.StreamHandler(sys.stderr)  # pytest's handlers keep `cli.run` from adding its own
            logging.getLogger().addHandler(logs)
            with pytest.raises(SystemExit) as ended:
                cli.run(words)
            logging.getLogger().removeHandler(logs)
        shown = "".join(capfd.readouterr())
        written.append(shown)
        return int(ended.value.code or 0), shown

    yield run
    assert not [text for text in written if canaries.in_bytes(text.encode())]
    assert canaries.files_with_canaries(tmp_path) == []


@pytest.fixture(scope="module")
def victim(registered, shared_store, tmp_path_factory, data, small) -> Victim:
    """Return a registry of its own for each file, to which forged models can be added."""
    folder = tmp_path_factory.mktemp("hostile")
    base = shutil.copytree(registered.files, folder / "base", ignore=shutil.ignore_patterns("__pycache__"))
    (base / "registered_model_meta").unlink(missing_ok=True)
    return Victim(base, folder / "canary", data, small)


@pytest.fixture(scope="module")
def made(victim) -> Callable[[object], Hostile]:
    """Return a function that makes each forged model once for a file."""
    return functools.cache(victim.forge)


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
