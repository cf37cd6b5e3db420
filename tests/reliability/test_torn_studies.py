"""A study's database that is damaged before a search opens it, or under a running search: one sentence each."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest


def half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def garbage(file: Path) -> None:
    file.write_bytes(os.urandom(file.stat().st_size))


def page(file: Path) -> None:
    """Damage all pages but the first."""
    content = file.read_bytes()
    file.write_bytes(content[:4096] + os.urandom(len(content) - 4096))


def text(file: Path) -> None:
    file.write_text("no database at all\n" * 100)


@pytest.mark.parametrize("tear", [half, garbage, page, text])
def test_torn_before_it_is_opened(commands, tiny, tmp_path, new_database, tear, studies):
    uri = new_database(tmp_path, str(tmp_path / "mlruns"))
    shutil.copy(studies, tmp_path / "studies.db")
    tear(tmp_path / "studies.db")
    words = ["tune", "--experiment", str(tiny), "--workers", "1", "--study", "torn"]
    done = commands.run(*words, folder=tmp_path, MLFLOW_TRACKING_URI=uri)
    assert done.code == 2, done.printed
    assert done.error.startswith("the study database sqlite:///studies.db cannot be used: ")
    assert mlflow.MlflowClient(uri).search_runs(["0"]) == []


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> Path:
    """A database with the tables of a study and of its lock."""
    import optuna

    from fmnist_exp.tuning.workers import study_lock

    file = tmp_path_factory.mktemp("studies") / "studies.db"
    storage = f"sqlite:///{file}"
    with study_lock.hold(storage, "torn"):
        study = optuna.create_study(study_name="torn", storage=storage)
        for number in range(200):
            study.set_user_attr(f"filler {number}", "x" * 200)
    return file


@pytest.mark.parametrize("tear", [garbage, pytest.param(half, marks=pytest.mark.slow)])
def test_torn_while_a_search_uses_it(commands, tiny, tmp_path, new_database, tear: Callable[[Path], None]):
    uri = new_database(tmp_path, str(tmp_path / "mlruns"))
    words = ["tune", "--experiment", str(tiny), "--workers", "1", "--study", "torn", "--n_trials", "2"]
    place = {"folder": tmp_path, "MLFLOW_TRACKING_URI": uri}
    database, copy = tmp_path / "studies.db", tmp_path / "copy.db"
    running = commands.start(*words, **place)
    running.until(lambda printed: "trial   0" in printed)
    shutil.copy(database, copy)
    tear(database)
    done = running.wait()
    assert done.code == 1, done.printed
    assert done.error.startswith("a database is damaged (")
    assert "put a copy of its file back" in done.error
    assert "to continue: fmnist-exp tune " in done.printed
    shutil.copy(copy, database)
    done = commands.run(*words, **place)
    assert done.code == 0, done.printed
    runs = mlflow.MlflowClient(uri).search_runs(["0"])
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED", "KILLED"}
    first = [run for run in runs if run.data.tags.get("fmnist.trial") == "0"]
    assert [run.info.status for run in first] == ["FINISHED"], "the trial that had ended is kept"
