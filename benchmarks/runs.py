"""The runs that benchmarks make with `fmnist-exp train` and find again: by settings, code, libraries and machine.

A number belongs to the code that computed it. A run is therefore found only if the modules that determine a network
were the same at its commit as they are now, and if libraries, backend, processor and number of threads are the same.
Comments, docstrings and other modules, such as those that serve models, may differ.
"""

import ast
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import tarfile
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass

import mlflow
from mlflow.entities import Run

from benchmarks import processes
from benchmarks.processes import PROJECT
from fmnist_exp.config import files
from fmnist_exp.config.fields import flatten
from fmnist_exp.experiment import conditions
from fmnist_exp.tracking import store
from fmnist_exp.tracking.names import Metric, Tag
from fmnist_exp.tracking.run import LIBRARIES
from fmnist_exp.tracking.writing import param_text

# the parts of fmnist_exp that determine the weights of a network and its accuracy
DETERMINING = (
    "backend",
    "compat",
    "config",
    "data",
    "evaluation/metrics.py",
    "experiment/run.py",
    "models",
    "training",
)
# modules of these folders that are no part of a network
OTHERS = (
    "compat/finding.py",
    "compat/forking.py",
    "compat/http.py",
    "config/search.py",
    "training/logistic_regression.py",
)
# the conditions that must be equal; the code has a rule of its own, see `Version.includes`
EQUAL = tuple(tag for tag in conditions.NAMES if tag != Tag.CODE)
NOT_OF_THE_FIT = ("gate.",)  # sections whose fields change no network


@dataclass(frozen=True)
class Wanted:
    """A run that a benchmark needs: an experiment, and what differs from its file."""

    experiment: str
    overrides: Mapping[str, object]
    score_test: bool = False  # once, at its end


@dataclass(frozen=True)
class Version:
    """The code, and the conditions of experiment/conditions.py: with the settings, they determine every number."""

    commit: str
    conditions: Mapping[str, str]

    @property
    def code(self) -> str:
        """The digest of the modules that determine a network."""
        return code_digest(self.commit)

    def includes(self, tags: Mapping[str, str]) -> bool:
        """Return whether a run with these tags was computed by the same code under the same conditions."""
        if any(tags.get(tag) != self.conditions[tag] for tag in EQUAL) or tags.get(Tag.DIRTY) != "false":
            return False
        return code_digest(tags.get(Tag.GIT_COMMIT, "")) == self.code

    def describe(self) -> str:
        """Return the code, the libraries and the machine that computed the numbers, as a paragraph."""
        return textwrap.fill(f"{self.software()} Machine: {self.machine()}, no GPU.", width=120)

    def software(self) -> str:
        """Return the code and the libraries, as two sentences."""
        libraries = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES)
        return (
            f"Code: digest {self.code} of the modules that determine a network, which commit {self.commit[:9]} has."
            f" Libraries: {libraries}; digest of all versions {self.conditions[Tag.LIBRARIES]};"
            f" Python {platform.python_version()}."
        )

    def machine(self) -> str:
        """Return the processor and the number of threads."""
        threads = self.conditions[Tag.THREADS]
        return f"{threads} {'thread' if threads == '1' else 'threads'} on {self.conditions[Tag.PROCESSOR]}"


def here() -> Version:
    """Return the version of this process. Raises SystemExit if the package has changes that were not committed."""
    found = conditions.current()
    if found[Tag.DIRTY] != "false":
        raise SystemExit("Commit the changes of fmnist_exp first: a number must name the code that computed it.")
    return Version(git("rev-parse", "HEAD"), found)


def settings(wanted: Wanted) -> dict[str, object]:
    """Return the fields that determine the network of a run, by their dotted names."""
    config = files.load(wanted.experiment, {key: str(value) for key, value in wanted.overrides.items()})
    fields = {key: value for key, value in flatten(config).items() if not key.startswith(NOT_OF_THE_FIT)}
    if fields["training.precision"] == "auto":  # a run logs the precision that was chosen for it
        del fields["training.precision"]
    return fields


class Runs:
    """The runs of one version in one MLflow experiment."""

    def __init__(self, name: str, version: Version) -> None:
        """Connect to the store that MLFLOW_TRACKING_URI names, by default the repository's own."""
        if not mlflow.is_tracking_uri_set():
            mlflow.set_tracking_uri(f"sqlite:///{PROJECT}/mlflow.db")
        self.version = version
        self.client, self._name = store.connect(), name

    def find(self, wanted: Wanted) -> Run | None:
        """Return the newest finished run of `wanted`, or None."""
        fields = settings(wanted)
        for run in self.finished(wanted.experiment):
            scored = Metric.TEST_ACCURACY in run.data.metrics
            same = all(_same(run.data.params.get(key), value) for key, value in fields.items())
            if same and (scored or not wanted.score_test):
                return run
        return None

    def finished(self, experiment: str) -> list[Run]:
        """Return the finished runs of an experiment that belong to this version, the newest first."""
        kept = self.client.get_experiment_by_name(self._name)
        query = f"tags.`{Tag.EXPERIMENT}` = '{experiment}' and attributes.status = 'FINISHED'"
        found = self.client.search_runs([kept.experiment_id], query) if kept else []
        return [run for run in found if self.version.includes(run.data.tags)]

    def have(self, wanted: Wanted) -> Run:
        """Return the newest finished run of `wanted`, which is trained if there is none.

        Raises CalledProcessError if the training fails.
        """
        if not self.find(wanted):
            self.train(wanted)
        found = self.find(wanted)
        assert found, f"the run of {wanted} is not in the store"
        return found

    def train(self, wanted: Wanted) -> None:
        """Run `fmnist-exp train`. Raises CalledProcessError if it fails."""
        score_test = str(wanted.score_test).lower()
        self.command("train", experiment=wanted.experiment, score_test=score_test, **wanted.overrides)

    def command(self, name: str, **options: object) -> None:
        """Run a command of fmnist-exp. Raises CalledProcessError if it fails."""
        arguments = processes.python("fmnist_exp", name, *processes.options(options))
        print(*arguments[2:], flush=True)
        environment = {"MLFLOW_TRACKING_URI": self.client.tracking_uri, "MLFLOW_EXPERIMENT_NAME": self._name}
        subprocess.run(arguments, check=True, cwd=PROJECT, env=os.environ | environment)

    def curve(self, run: Run, metric: str) -> list[float]:
        """Return the values of a metric by epoch."""
        return [float(point.value) for point in self.client.get_metric_history(run.info.run_id, metric)]


@functools.cache
def code_digest(commit: str, parts: tuple[str, ...] = DETERMINING) -> str:
    """Return a digest of these parts of fmnist_exp, as a commit has them; empty if Git does not know it.

    Comments, docstrings and the layout of the text do not count.
    """
    paths = [f"fmnist_exp/{part}" for part in parts]
    packed = _git("archive", commit, "--", *paths) if commit else b""
    if not packed:
        return ""
    content = hashlib.sha256()
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            file = archive.extractfile(member)
            if file and member.name.endswith(".py") and not member.name.endswith(OTHERS):
                content.update(member.name.encode() + _without_docstrings(file.read()).encode())
    return content.hexdigest()[:12]


def _without_docstrings(source: bytes) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
    return ast.dump(tree)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def git(*arguments: str) -> str:
    """Return what a Git command prints, empty if it fails."""
    return _git(*arguments).decode().strip()


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(PROJECT), *arguments], capture_output=True)
    return b"" if done.returncode else done.stdout


def accuracy(run: Run, split: str) -> float:
    """Return the accuracy of a run's network on "validation" or "test", in percent."""
    return 100 * float(run.data.metrics[Metric.TEST_ACCURACY if split == "test" else Metric.BEST_VAL_ACCURACY])


def _same(logged: str | None, value: object) -> bool:
    return logged == param_text(value) or logged == json.dumps(value)
