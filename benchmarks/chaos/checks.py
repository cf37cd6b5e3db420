"""The checks at the end of a soak: what the studies say is compared with what MLflow's database and its disk have."""

import collections
import json
import math
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from benchmarks.chaos.searches import EPOCHS
from benchmarks.chaos.services import Database
from fmnist_exp.export import checksums
from fmnist_exp.tracking.names import Metric, Tag
from fmnist_exp.tuning import study as studies
from fmnist_exp.tuning.record import TrialRecord

EACH_EPOCH = (
    *(Metric.TRAIN_LOSS, Metric.TRAIN_ACCURACY, Metric.VAL_LOSS, Metric.VAL_ACCURACY),
    *(Metric.LEARNING_RATE, Metric.EPOCH_SECONDS),
)
STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
SPOOL_ID = "fmnist.spool_id"
_KEPT = "current_stage != 'Deleted_Internal'"  # MLflow keeps the rows of deleted versions
UPLOADING = ".artifact.uploading.*"  # files that MLflow's server writes first, and hides: a killed one leaves them


@dataclass(frozen=True)
class Row:
    """One check."""

    name: str
    found: object
    expected: object
    examples: str = ""  # of what is wrong

    @property
    def holds(self) -> bool:
        """True if it is as expected."""
        return self.found == self.expected


def no(name: str, wrong: Sequence[object]) -> Row:
    """Return the check that there is no example of something."""
    return Row(name, len(wrong), 0, "; ".join(map(str, wrong[:5])))


class Tracked:
    """Everything that MLflow's database has, deleted runs and models included."""

    def __init__(self, database: Database) -> None:
        def ask(text: str) -> list[tuple]:
            found = database.sql(text, "mlflow")
            assert found is not None, "PostgreSQL does not answer"
            return found

        self.status = {
            run: (status, stage) for run, status, stage in ask("SELECT run_uuid, status, lifecycle_stage FROM runs")
        }
        self.tags: dict[str, dict[str, str]] = collections.defaultdict(dict)
        for run, key, value in ask("SELECT run_uuid, key, value FROM tags"):
            self.tags[run][key] = value
        self.metrics: dict[tuple[str, str], list[tuple[int, float]]] = collections.defaultdict(list)
        for run, key, step, value in ask("SELECT run_uuid, key, step, value FROM metrics ORDER BY step"):
            self.metrics[run, key].append((step, value))
        query = "SELECT model_id, status, lifecycle_stage, artifact_location, source_run_id FROM logged_models"
        self.models = {model: rest for model, *rest in ask(query)}
        self.model_tags: dict[str, dict[str, str]] = collections.defaultdict(dict)
        for model, key, value in ask("SELECT model_id, tag_key, tag_value FROM logged_model_tags"):
            self.model_tags[model][key] = value
        self.versions = ask(f"SELECT version, run_id, source, status FROM model_versions WHERE {_KEPT}")
        self._of_local = {
            tags[SPOOL_ID]: key
            for found in (self.tags, self.model_tags)
            for key, tags in sorted(found.items(), key=lambda entry: self._is_active(entry[0]))
            if SPOOL_ID in tags
        }

    def _is_active(self, key: str) -> bool:
        """Return False for a run that was deleted, as the twin of one whose request was carried out twice is."""
        return self.status.get(key, ("", "active"))[1] == "active"

    def id(self, known: str) -> str:
        """Return the store's id of a run or model that may be known by its local id."""
        return self._of_local.get(known, known)


def of_studies(database: Database, count: int, trials: int) -> Iterator[Row]:
    """Yield the checks of the studies: each trial has its run, its epochs, its result and its model."""
    tracked = Tracked(database)
    finished: list[tuple[str, FrozenTrial]] = []
    short, running, named = [], [], {}
    for number in range(count):
        study = optuna.load_study(study_name=f"chaos-{number}", storage=database.url("studies"))
        counted = studies.finished(study)
        finished += [(study.study_name, trial) for trial in counted]
        running += [f"{study.study_name} trial {trial.number}" for trial in studies.running(study)]
        if len(counted) != trials:
            short.append(f"{study.study_name} has {len(counted)}")
        for trial in study.get_trials(deepcopy=False):
            if run_id := TrialRecord.of(trial).run_id:
                named[tracked.id(run_id)] = f"{study.study_name} trial {trial.number}"
    yield Row("studies that ended", count, count)
    yield no(f"studies without exactly {trials} finished trials", short)
    yield no("trials RUNNING in Optuna", running)
    yield Row("finished trials that were compared with MLflow", len(finished), count * trials)
    wrong = collections.defaultdict(list)
    for name, trial in finished:
        for kind, why in _faults(trial, tracked):
            wrong[kind].append(f"{name} trial {trial.number}: {why}")
    for kind in ("epochs", "state", "accuracy", "model", "failure"):
        yield no(_NAMES[kind], wrong[kind])
    of_trials = [run for run, tags in tracked.tags.items() if tags.get(Tag.KIND) == "trial"]
    active = [run for run in of_trials if tracked.status[run][1] == "active"]
    yield no("runs of trials that no study names", [run for run in active if run not in named])
    left = [
        f"{run} ({tracked.tags[run].get(Tag.KIND)}, {stage})"
        for run, (status, stage) in tracked.status.items()
        if status == "RUNNING"
    ]
    yield no("runs RUNNING, deleted ones included", left)
    yield from _versions(tracked, count)


_NAMES = {
    "epochs": "trials without every epoch exactly once, or with other values than the study's",
    "state": "trials whose run has another state",
    "accuracy": "trials whose run has another accuracy",
    "model": "trials without a complete model",
    "failure": "trials that failed for another reason than three killed workers",
}


def _faults(trial: FrozenTrial, tracked: Tracked) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with one finished trial: the kind, and the details."""
    record = TrialRecord.of(trial)
    run = tracked.id(record.run_id)
    if trial.state.name == "FAIL" and "its worker died" not in record.error:
        yield "failure", record.error
    if run not in tracked.status:
        if trial.state.name != "FAIL":
            yield "state", f"MLflow has no run {record.run_id}"
        return
    status, stage = tracked.status[run]
    if (status, stage) != (STATUS[trial.state.name], "active"):
        yield "state", f"{trial.state.name}, its run {run} is {status} ({stage})"
    expected = sorted(trial.intermediate_values.items())
    if trial.state.name == "COMPLETE" and len(expected) != EPOCHS:
        yield "epochs", f"the study has {len(expected)} of {EPOCHS}"
    for key in EACH_EPOCH:
        found = tracked.metrics.get((run, key), [])
        steps = [step for step, _ in found]
        if trial.state.name == "FAIL":  # its worker may have been killed between the report and the record
            if len(set(steps)) < len(steps):
                yield "epochs", f"{key} at steps {steps} in run {run}"
        elif steps != [step for step, _ in expected]:
            yield "epochs", f"{key} at steps {steps}, expected 1 to {len(expected)}, in run {run}"
        elif key == Metric.VAL_ACCURACY and not _equal(found, expected):
            yield "epochs", f"{found}, but the study has {expected}"
    if trial.state.name != "FAIL":
        logged = tracked.metrics.get((run, Metric.BEST_VAL_ACCURACY), [])
        if [value for _, value in logged] != [record.val_accuracy]:
            yield "accuracy", f"{logged}, but the study has {record.val_accuracy}"
        model = tracked.models.get(tracked.id(record.model_id))
        if model is None or model[:2] != [_READY, "active"]:
            yield "model", f"{record.model_id} is {model and model[:2]}"


_READY = 2  # number of LoggedModelStatus.READY in MLflow's database


def _equal(found: Sequence[tuple[int, float]], expected: Sequence[tuple[int, float]]) -> bool:
    return all(math.isclose(a[1], b[1], abs_tol=1e-9) for a, b in zip(found, expected, strict=True))


def _versions(tracked: Tracked, count: int) -> Iterator[Row]:
    yield Row("registered versions, one for each study", len(tracked.versions), count)
    yield no("versions that are not ready", [version for version in tracked.versions if version[3] != "READY"])
    unfinished = [
        f"{model} {details[:2]}"
        for model, details in tracked.models.items()
        if details[0] != _READY and details[1] == "active"
    ]
    yield no("models PENDING or FAILED", unfinished)


def of_files(database: Database, artifacts: Path) -> Iterator[Row]:
    """Yield the checks of the disk: every folder belongs to a run or a model, and every model is whole."""
    tracked = Tracked(database)
    known = {*tracked.status, *tracked.models}
    folders = [folder for parent in artifacts.glob("*") for folder in (*parent.glob("*"), *parent.glob("models/*"))]
    owned = [folder for folder in folders if folder.name != "models"]
    yield no("folders of files that belong to no run or model", [f.name for f in owned if f.name not in known])
    empty, damaged = [], []
    for model, (status, stage, location, _) in tracked.models.items():
        if (status, stage) != (_READY, "active"):
            continue
        folder = artifacts / location.removeprefix("mlflow-artifacts:/")
        if not folder.is_dir():
            empty.append(model)
            continue
        with tempfile.TemporaryDirectory() as copy:
            listed = shutil.copytree(folder, Path(copy, "model"), ignore=shutil.ignore_patterns(UPLOADING))
            try:
                checksums.verify(listed, tracked.model_tags[model].get("fmnist.sha256"))
            except Exception as error:  # whatever is wrong, the model is damaged
                damaged.append(f"{model}: {error}")
    yield no("models without files", empty)
    yield no("models whose files are not those of their checksums", damaged)


def half_uploads(artifacts: Path) -> int:
    """Return the number of files that killed servers left in the middle of an upload. MLflow lists none of them."""
    return sum(1 for _ in artifacts.rglob(UPLOADING))


def snapshot(database: Database) -> str:
    """Return a text that changes when anything is added to MLflow's database, for a sync that must change nothing."""
    tables = ("runs", "metrics", "params", "tags", "inputs", "logged_models", "model_versions")
    counts: dict[str, Any] = {
        table: (database.sql(f"SELECT count(*) FROM {table}", "mlflow") or [[None]])[0][0] for table in tables
    }
    return json.dumps(counts)
