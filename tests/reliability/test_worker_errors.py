"""Faults that libraries report inside the workers of a search: each fails its trial with one sentence."""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import alembic.command
import alembic.config
import keras
import mlflow
import onnxruntime
import optuna
import sqlalchemy
from support import faults, standin
from support.searches import FinishedSearch

from fmnist_exp.config.schema import ExperimentConfig
from fmnist_exp.data.dataset import FashionMNIST
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tracking.run import Run
from fmnist_exp.training.events import FitCallback
from fmnist_exp.tuning.workers.messages import TrialResult


def keras_file() -> None:
    network = keras.Sequential([keras.Input((784,)), keras.layers.Dense(50)])
    network.save("cut.keras")
    faults.half_of_the_weights(Path("cut.keras"))
    keras.saving.load_model("cut.keras")


def damaged_database() -> None:
    Path("damaged.db").write_text("no database\n" * 1000)
    mlflow.MlflowClient("sqlite:///damaged.db").search_experiments()


def migration() -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    config.set_main_option("sqlalchemy.url", "sqlite:///new.db")
    alembic.command.upgrade(config, "ffffffffffff")


def locked_database() -> None:
    with sqlalchemy.create_engine("sqlite:///locked.db", connect_args={"timeout": 0}).connect() as connection:
        blocking = sqlite3.connect("locked.db", isolation_level=None)
        blocking.execute("BEGIN EXCLUSIVE")
        try:
            connection.execute(sqlalchemy.text("CREATE TABLE t (x)"))
        finally:
            blocking.close()


def refused_by_mlflow() -> None:
    mlflow.MlflowClient().get_run("0" * 32)


def missing_study() -> None:
    optuna.create_study(study_name="twice", storage="sqlite:///twice.db")
    optuna.create_study(study_name="twice", storage="sqlite:///twice.db")


def missing_file() -> None:
    Path("missing/file").read_bytes()


def onnx_file() -> None:
    Path("cut.onnx").write_bytes(b"half")
    onnxruntime.InferenceSession("cut.onnx")


FAULTS: list[tuple[Callable[[], None], str, str]] = [  # what fails, words of its reason, and words of the advice
    (keras_file, "file", "check that it exists and may be used"),
    (damaged_database, "not a database", "put a copy of its file back"),
    (migration, "ffffffffffff", "install the release that made it"),
    (locked_database, "database is locked", "wait for the process"),
    (refused_by_mlflow, "not found", "check MLFLOW_TRACKING_URI"),
    (missing_study, "already exists", "or with another --study"),
    (missing_file, "missing/file", "check that it exists and may be used"),
    (onnx_file, "cut.onnx", "replace it"),
]


def failing(config: ExperimentConfig, data: FashionMNIST, run: Run, callbacks: Sequence[FitCallback]) -> TrialResult:
    """Every second trial meets a fault, since five failures in a row would end the search."""
    number = int(run.tag(Tag.TRIAL))
    if number % 2:
        FAULTS[number // 2][0]()
    return standin.objective(config, data, run, callbacks)


def test_a_fault_inside_a_worker_fails_its_trial_with_one_sentence(shared_store, capfd):
    config = standin.configure(2 * len(FAULTS), training__epochs=1, search__pruner="none")
    standin.search(config, "failing", objective=failing)
    found = FinishedSearch("failing")
    printed = "".join(capfd.readouterr())
    assert "Traceback" not in printed, printed
    assert [trial.state.name for trial in found.trials] == ["COMPLETE", "FAIL"] * len(FAULTS)
    for (_, reason, advice), trial in zip(FAULTS, found.trials[1::2], strict=True):
        said = trial.user_attrs["error"]
        assert (reason in said, advice in said, "\n" in said) == (True, True, False), said
        assert found.client.get_run(trial.user_attrs["run_id"]).data.tags[Tag.ERROR] == said
