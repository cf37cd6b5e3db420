"""Real processes of the command line that start in milliseconds: a process that has done the imports, and forks.

Importing TensorFlow takes ten seconds and more, which a test of twenty faults would spend twenty times. `python -m
support.stable` imports everything once, computes nothing, and forks a child for each command that it reads.
"""

import functools
import importlib
import itertools
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

TESTS = Path(__file__).parents[1]
MODULES = """
alembic.command mlflow.store.artifact.local_artifact_repo mlflow.store.tracking.sqlalchemy_store
fmnist_exp.cli.display fmnist_exp.cli.search_display fmnist_exp.experiment.baseline fmnist_exp.experiment.reproduce
fmnist_exp.experiment.train fmnist_exp.registry.evaluate fmnist_exp.registry.gate fmnist_exp.registry.pairing
fmnist_exp.serving.model fmnist_exp.serving.server fmnist_exp.tuning.search
"""


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int  # negative after a signal
    printed: str  # standard output and standard error

    @property
    def error(self) -> str:
        """The one line that says what was wrong."""
        assert "Traceback" not in self.printed, self.printed
        lines = [line for line in self.printed.splitlines() if line.startswith("fmnist-exp: ")]
        errors = [line for line in lines if "fmnist-exp sync" not in line]  # which says what is left to send
        assert len(errors) == 1, self.printed
        return errors[0].removeprefix("fmnist-exp: ")


@dataclass
class Running:
    """A command in a process group of its own."""

    pid: int
    log: Path
    stable: "Stable"

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def until(self, ready: Callable[[str], bool], seconds: float = 120) -> str:
        """Wait until what was printed fulfils a condition, or the process has ended."""
        deadline = time.monotonic() + seconds
        while not ready(text := self.text()) and self.alive():
            assert time.monotonic() < deadline, text
            time.sleep(0.01)
        return text

    def alive(self) -> bool:
        with open(f"/proc/{self.pid}/stat") as file:  # it stays a zombie until `wait`
            return file.read().rpartition(")")[2].split()[0] not in "ZX"

    def send(self, *signals: int) -> None:
        """Send signals one after another, 50 ms apart."""
        for place, number in enumerate(signals):
            if place:
                time.sleep(0.05)
            os.kill(self.pid, number)

    def wait(self, seconds: float = 180) -> Done:
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > deadline:
                os.killpg(self.pid, 9)
                raise AssertionError(f"still there after {seconds} s:\n{self.text()}")
            time.sleep(0.01)
        return Done(self.stable.ask(wait=self.pid), self.text())


class Stable:
    """The process that forks."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self._process = process
        self._folder = folder
        self._count = 0

    def start(
        self, *words: str, folder: Path | str = ".", press: Sequence[str | int] = (), **variables: str
    ) -> Running:
        """Start a command line in a folder with environment variables.

        `press` has the dotted path of a function, a number, and signals that the process gets when the function is
        called for that time.
        """
        self._count += 1
        log = self._folder / f"{self._count}.log"
        log.touch()
        environment = {**os.environ, **variables}
        place = {"folder": str(Path(folder).resolve()), "log": str(log)}
        return Running(self.ask(words=words, **place, environment=environment, press=press), log, self)

    def run(self, *words: str, **options: Any) -> Done:
        """Run a command line to its end; the options are those of `start`."""
        return self.start(*words, **options).wait()

    def ask(self, **request: Any) -> int:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@contextmanager
def opened(folder: Path) -> Iterator[Stable]:
    """Yield the process; the logs of its commands are kept in the folder."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    command = [sys.executable, "-m", "support.stable"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True, env=environment) as process:
        try:
            yield Stable(process, folder)
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait(60)


def _child(words: list[str], folder: str, log: str, environment: Mapping[str, str], press: list[Any]) -> None:
    from fmnist_exp import cli

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
    os.chdir(folder)
    own = {name: os.environ[name] for name in ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL")}  # which the package has set
    os.environ.clear()
    os.environ.update(own | dict(environment))
    tempfile.tempdir = None  # it is looked for again, where TMPDIR says
    null, out = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND)
    for source, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    if press:
        _press_during(*press)
    cli.run(words)


def _press_during(function: str, turn: int, *signals: int) -> None:
    """Send this process signals when the function at this dotted path is called for the `turn`-th time."""
    path, _, name = function.rpartition(".")
    owner: Any = pkgutil.resolve_name(path)
    original, calls = getattr(owner, name), itertools.count(1)

    @functools.wraps(original)
    def pressed(*arguments: Any, **options: Any) -> Any:
        if next(calls) == turn:
            for number in signals:
                os.kill(os.getpid(), number)
        return original(*arguments, **options)

    setattr(owner, name, pressed)


def serve(requests: IO[str]) -> None:
    for line in requests:
        request = json.loads(line)
        if pid := request.pop("wait", 0):
            answer = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        else:
            answer = os.fork()
            if not answer:
                _child(**request)
        print(answer, flush=True)


def imports() -> None:
    from fmnist_exp.backend import loading

    loading.load_keras()
    for name in MODULES.split():
        importlib.import_module(name)


if __name__ == "__main__":
    imports()
    serve(sys.stdin)
