"""An MLflow server that goes away and comes back gets everything once, and no fit waits for it meanwhile."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from support import services
from support.spools import begin, contents, creation, folder, head, log_everything

from fmnist_exp.tracking import store
from fmnist_exp.tracking.spool import folder as folders
from fmnist_exp.tracking.spool import ids, sync
from fmnist_exp.tracking.spool.left import on_disk
from fmnist_exp.tracking.spool.process import sender


@pytest.fixture(scope="module")
def server(tmp_path_factory, new_database) -> Iterator[services.MlflowServer]:
    where = tmp_path_factory.mktemp("server")
    made = services.MlflowServer(where, new_database(where, "mlflow-artifacts:"))
    with pytest.MonkeyPatch.context() as patch:
        made.start()
        patch.setenv("MLFLOW_TRACKING_URI", made.address)
        yield made
        made.stop()


@pytest.fixture
def client(server, monkeypatch, tmp_path):
    monkeypatch.setenv("FMNIST_EXP_SPOOL", str(tmp_path / "spool"))
    return store.connect()


def test_an_outage_costs_no_time_and_loses_nothing(client, server, registered, tmp_path, caplog):
    parent = begin(client)
    assert parent.wait(1, 60)
    assert not ids.is_local(parent.id)
    server.stop()
    child = begin(client, parent.id)  # nobody knows yet that the server is away
    assert not child.wait(1, 60)
    assert not sender().is_up
    began = time.monotonic()
    model, _ = log_everything(child, registered.files, tmp_path)
    for step in range(100):
        parent.append("batch", {"metrics": [["later", step, step, step]]})
    assert not parent.wait(parent.append("batch", {"tags": {"told": f"{child.id}"}}))
    assert time.monotonic() < began + 30  # MLflow would retry one request for minutes
    left = sender().drain(2)
    assert left.records == len(child.pending) + 101
    assert on_disk(store.address()).records == left.records
    assert folders.model_files(model) is not None
    server.start()
    assert not sender().drain()
    child.close()
    parent.close()
    assert not folders.root().exists()
    run, above = client.get_run(child.id), client.get_run(parent.id)
    assert run.data.tags["mlflow.parentRunId"] == parent.id
    assert above.data.tags["told"] == child.id
    assert [point.step for point in client.get_metric_history(parent.id, "later")] == list(range(100))
    assert run.info.status == "FINISHED"
    logged = client.get_logged_model(ids.resolve(client, model))
    assert str(logged.status) == "READY"
    assert [output.model_id for output in run.outputs.model_outputs] == [logged.model_id]
    assert [found.source for found in client.search_model_versions(f"run_id = '{child.id}'")] == [
        f"models:/{logged.model_id}"
    ]
    assert {entry.path for entry in client.list_artifacts(child.id)} == {"curves"}
    assert {entry.path for entry in client.list_artifacts(child.id, "curves")} == {"curves/a.txt", "curves/deep"}
    rows = contents(Path(server.database.removeprefix("sqlite:///")))
    assert len(rows["runs"]) == 2
    assert len(rows["logged_models"]) == 1
    said = [record.getMessage() for record in caplog.records if record.name.endswith("contact")]
    assert ["does not answer (the connection was refused)" in said[0], "answers again" in said[1], len(said)] == [
        *(True, True, 2)
    ]


def test_runs_that_wait_for_the_server_hold_few_files_open(client, server):
    process = psutil.Process()
    server.stop()
    before = process.num_fds()
    spools = [begin(client) for _ in range(30)]
    for spool in spools:
        spool.append("status", {"status": "FINISHED", "end_time": 1})
        spool.close()
    assert process.num_fds() < before + 30 + 10  # a lock each, and a few connections that fail
    again = sender().open(client, spools[0].head)  # as a search does that ranks its trials
    assert again is spools[0]
    again.append("batch", {"tags": {"rank": "1"}})
    again.close()
    server.start()
    assert not sender().drain()
    run = client.get_run(again.id)
    assert (run.info.status, run.data.tags["rank"]) == ("FINISHED", "1")
    assert not folders.root().exists()


def test_a_deleted_run_ends_its_folder_without_noise(client, caplog):
    spool = begin(client)
    other = begin(client)
    assert spool.wait(1, 60)
    assert other.wait(1, 60)
    client.delete_run(spool.id)
    spool.append("batch", {"metrics": [["loss", 1.0, 1, 1]]})
    other.append("status", {"status": "KILLED", "end_time": 1, "run_id": spool.id})
    number = other.append("batch", {"tags": {"still": "here"}})
    assert other.wait(number, 60)
    assert not sender().drain()
    spool.close()
    other.close()
    assert not folders.root().exists()
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_what_the_store_refuses_is_kept_told_once_and_holds_nothing_up(client, caplog):
    spool = begin(client)
    spool.append("batch", {"params": {"width": "1"}})
    refused = spool.append("batch", {"params": {"width": "2"}})
    assert spool.wait(spool.append("batch", {"tags": {"after": "it"}}), 60)
    assert not spool.wait(refused)
    assert "Changing param values is not allowed" in str(spool.refusal(refused))
    path = spool.path
    spool.close()
    assert not sender().drain()
    assert client.get_run(spool.id).data.tags["after"] == "it"
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"record {refused}, batch" in told
    assert str(path) in told
    assert sync.adopt(client).records == 0  # the next command does not tell it again
    assert sync.send(client).refused == 1  # this one tries again
    assert path.exists()


def test_a_run_that_may_not_be_created_holds_nobody_up(client):
    spool = sender().open(client, head())
    number = spool.append("create_run", creation("12345"))
    spool.append("batch", {"tags": {"never": "sent"}})
    assert not spool.wait(number, 60)
    assert spool.refusal(number) is not None
    began = time.monotonic()
    assert sender().drain(60).records == 1
    assert time.monotonic() < began + 30
    spool.close()


def test_a_slow_upload_does_not_hold_up_other_runs(client, monkeypatch, tmp_path):
    """A thread of its own sends files; the real upload starts when the other run has ended."""
    go_on, upload = threading.Event(), type(client).log_artifacts

    def slow(*words: object) -> None:
        assert go_on.wait(60)
        upload(*words)

    monkeypatch.setattr(type(client), "log_artifacts", slow)
    spools = [begin(client), begin(client)]
    spools[0].append("artifacts", {"path": ""}, files=folder(tmp_path, {"a.txt": "a"}))
    last = spools[0].append("status", {"status": "FINISHED", "end_time": 1})
    assert spools[1].wait(spools[1].append("status", {"status": "FINISHED", "end_time": 1}), 60)
    assert client.get_run(spools[0].id).info.status == "RUNNING"  # the order within a run stays
    go_on.set()
    assert spools[0].wait(last, 60)
    assert [entry.path for entry in client.list_artifacts(spools[0].id)] == ["a.txt"]
    for spool in spools:
        spool.close()
