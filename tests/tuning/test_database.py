"""A study in PostgreSQL, which is restarted while the study is open."""

import threading

import optuna
import pytest

from benchmarks.chaos import services
from fmnist_exp.tuning import database

pytestmark = pytest.mark.skipif(
    not services.TOOLS.joinpath("initdb").exists(), reason="the programs of PostgreSQL are not installed"
)


@pytest.fixture
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("postgres")
    for parent in (folder, *list(folder.parents)[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)  # PostgreSQL runs as another user
    made = services.Database(folder, folder / "log")
    made.start()
    try:
        made.wait()
        made.sql("CREATE DATABASE studies")
        yield made
    finally:
        made.kill()


def test_an_open_study_survives_a_restart_of_its_database(server, caplog):
    study = optuna.create_study(storage=database.patient(server.url("studies")), study_name="restarted")
    study.tell(study.ask(), 1.0)
    server.end_sessions()
    study.tell(study.ask(), 2.0)
    server.kill()
    later = threading.Timer(2, server.start)
    later.start()
    study.tell(study.ask(), 3.0)  # waits
    later.join()
    assert [trial.value for trial in study.get_trials()] == [1.0, 2.0, 3.0]
    assert any("waiting for it" in record.message for record in caplog.records)


def test_a_database_that_is_away_at_the_start_is_refused_at_once():
    address = f"postgresql+psycopg://tester@127.0.0.1:{services.free_port()}/studies"
    with pytest.raises(Exception, match="onnection"):
        optuna.create_study(storage=database.patient(address))
