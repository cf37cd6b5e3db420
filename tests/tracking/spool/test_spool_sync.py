"""Folders of records that were not sent are sent later, once, by another process, from a copy too."""

import shutil
from pathlib import Path

import pytest
from mlflow.artifacts import download_artifacts, list_artifacts
from support.spools import begin, contents, creation, folder, head, log_everything

from fmnist_exp.cli import main
from fmnist_exp.errors import WorkError
from fmnist_exp.registry import private_copy
from fmnist_exp.tracking import store
from fmnist_exp.tracking.spool import folder as folders
from fmnist_exp.tracking.spool import ids, sync
from fmnist_exp.tracking.spool.left import on_disk
from fmnist_exp.tracking.spool.process import sender


@pytest.fixture
def client(shared_store, monkeypatch, tmp_path):
    monkeypatch.setenv("FMNIST_EXP_SPOOL", str(tmp_path / "spool"))
    yield store.connect()
    assert not sender().drain(10)


@pytest.fixture
def offline(client, monkeypatch):
    """Let nothing be sent during the test's first part, which ends by setting `sender().offline = False`."""
    monkeypatch.setattr(sender(), "offline", True)


def test_everything_is_sent_later_and_once(client, offline, shared_store, registered, tmp_path):
    database = Path(shared_store.removeprefix("sqlite:///"))
    empty = contents(database)
    parent = begin(client)
    child = begin(client, parent.id)
    model, version = log_everything(child, registered.files, tmp_path)
    parent.append("batch", {"tags": {"fmnist.best_run": child.id}})
    assert ids.is_local(child.id)
    assert not child.wait(1)
    assert folders.model_files(model) is not None
    child.close()
    parent.close()
    assert contents(database) == empty
    assert on_disk(store.address()).folders == 2
    copy, second = (Path(shutil.copytree(folders.root(), tmp_path / name)) for name in ("copy", "second"))
    sender().offline = False

    sent = sync.send(client)
    assert (sent.left, sent.refused, sent.in_use, sent.unreadable) == ({}, 0, set(), set())
    assert not folders.root().exists()
    run, above = (client.get_run(ids.resolve(client, spool.head.id)) for spool in (child, parent))
    assert above.data.tags["fmnist.best_run"] == run.info.run_id
    assert run.data.tags["mlflow.parentRunId"] == above.info.run_id
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", 1000, 5000)
    assert run.data.params == {"p": "1", "q": "x" * 300}
    points = client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.timestamp, point.value) for point in points] == [
        (step, 1000 + step, 1 / step) for step in (1, 2, 3)
    ]
    assert {entry.path for entry in list_artifacts(run_id=run.info.run_id)} == {"curves"}
    logged = client.get_logged_model(ids.resolve(client, model))
    assert (str(logged.status), logged.params, logged.source_run_id) == ("READY", {"width": "32"}, run.info.run_id)
    assert [(metric.key, metric.value) for metric in logged.metrics] == [("accuracy", 0.5)]
    assert [(out.model_id, out.step) for out in run.outputs.model_outputs] == [(logged.model_id, 3)]
    assert run.data.tags["mlflow.note.content"] == f"model {logged.model_id} of run {run.info.run_id}"
    with private_copy.opened(client, logged.model_id):  # the files are complete, and the tags vouch for them
        pass
    (found,) = client.search_model_versions(f"tags.`fmnist.spool_id` = '{version}'")
    assert (found.run_id, found.tags["study"]) == (run.info.run_id, "s")

    once = contents(database)
    assert sync.send(client).records == 0
    for again in (copy, second):
        sent = sync.send(client, again)
        assert (sent.left, sent.refused) == ({}, 0)
        assert contents(database) == once
        assert not again.exists()


def test_files_that_newer_ones_replace_do_not_wait(client, offline, tmp_path):
    """A checkpoint every other epoch would fill the disk while the store is away."""
    spool = begin(client)
    for epoch in range(6):
        state = {f"state-{epoch % 2}.txt": str(epoch)}
        spool.append("artifacts", {"path": "checkpoint"}, files=folder(tmp_path, state))
    spool.append("artifacts", {"path": ""}, files=folder(tmp_path, {"state-0.txt": "another path"}))
    assert len(list((spool.path / "files").iterdir())) == 3
    spool.close()
    sender().offline = False
    assert sync.adopt(client).records == 4
    run_id = ids.resolve(client, spool.head.id)
    sent = Path(download_artifacts(run_id=run_id, dst_path=str(tmp_path / "sent")))
    assert [(sent / "checkpoint" / f"state-{turn}.txt").read_text() for turn in (0, 1)] == ["4", "5"]
    assert (sent / "state-0.txt").read_text() == "another path"


def test_a_folder_of_a_living_process_is_left_alone(client):
    spool = begin(client)
    assert spool.wait(1, 30)
    assert sync.adopt(client).in_use == {spool.path.name}
    spool.close()


def test_the_command_sends_what_waits_and_says_what_it_left(client, offline, tmp_path, capsys):
    parent = begin(client)
    child = begin(client, parent.id)
    parent_path, child_path = parent.path, child.path
    child.close()
    parent.close()
    shutil.move(parent_path, tmp_path / "parent")
    sender().offline = False
    with pytest.raises(WorkError) as error:
        main.main(args=["sync"], standalone_mode=False)
    why = f"the store does not have {parent.head.id} yet"
    assert str(error.value) == f"the spool still has {child_path.name} ({why}); run the command again later"
    main.main(args=["sync", str(tmp_path / "parent")], standalone_mode=False)
    main.main(args=["sync"], standalone_mode=False)
    assert not child_path.exists()
    assert "nothing waits" not in capsys.readouterr().out
    main.main(args=["sync"], standalone_mode=False)
    assert "nothing waits in" in capsys.readouterr().out


def test_what_is_said_about_a_run_that_was_lost_is_given_up(client, offline):
    """A full disk kept the run in the memory of a process that was killed; another process closes it."""
    lost, waiting = ids.new(), begin(client)
    writer = begin(client)
    for run_id in (lost, waiting.id):
        writer.append("batch", {"tags": {"fmnist.error": "its driver was killed"}, "run_id": run_id})
        writer.append("status", {"status": "KILLED", "end_time": 5000, "run_id": run_id})
    writer.append("batch", {"tags": {"after": "that"}})
    writer.close()
    waiting.close()
    sender().offline = False
    sent = sync.send(client)
    assert (sent.left, sent.refused) == ({}, 0)
    assert not folders.root().exists()
    assert client.get_run(ids.resolve(client, writer.head.id)).data.tags["after"] == "that"
    closed = client.get_run(ids.resolve(client, waiting.head.id))
    assert (closed.info.status, closed.data.tags["fmnist.error"]) == ("KILLED", "its driver was killed")
    assert ids.resolve(client, lost) is None


def test_a_child_waits_for_its_parent(client, offline, tmp_path):
    parent = begin(client)
    child = begin(client, parent.id)
    path, child_name = parent.path, child.path.name
    child.close()
    parent.close()
    shutil.move(path, tmp_path / "parent")
    sender().offline = False
    assert sync.adopt(client).left == {child_name: f"the store does not have {parent.head.id} yet"}
    assert ids.resolve(client, child.head.id) is None
    shutil.move(tmp_path / "parent", path)
    assert sync.adopt(client).left == {}
    assert client.get_run(ids.resolve(client, child.head.id)).data.tags["mlflow.parentRunId"] == ids.resolve(
        client, parent.head.id
    )


def test_damage_is_healed_from_the_copy_or_told(client, offline, tmp_path, caplog):
    spool = begin(client)
    for step in (1, 2, 3):
        spool.append("batch", {"metrics": [["loss", step, step, step]]})
    spool.append("artifacts", {"path": ""}, files=folder(tmp_path, {"a.txt": "a", "b.txt": "b"}))
    path = spool.path
    spool.close()

    def flip(name: str, line: int) -> None:
        content = (path / name).read_bytes().splitlines(keepends=True)
        content[line] = content[line][:30] + bytes([content[line][30] ^ 1]) + content[line][31:]
        (path / name).write_bytes(b"".join(content))

    flip("records", 0)
    flip("records.copy", 2)
    for name in folders.RECORDS:
        flip(name, 3)
    (path / "files" / "5" / "b.txt").write_text("c")
    with (path / "records").open("ab") as file:
        file.write(b"torn")
    sender().offline = False
    assert sync.adopt(client).left == {}
    run = client.get_run(ids.resolve(client, spool.head.id))
    assert [point.step for point in client.get_metric_history(run.info.run_id, "loss")] == [1, 3]
    assert [entry.path for entry in list_artifacts(run_id=run.info.run_id)] == ["a.txt"]
    told = "The local spool was damaged; the store never got: record 3, file b.txt of record 5."
    assert run.data.tags["fmnist.spool_damaged"] == told
    assert [record.getMessage() for record in caplog.records] == [
        f"run {run.info.run_id}: {told[0].lower()}{told[1:-1]}"
    ]
    assert not folders.root().exists()


def test_a_run_whose_first_record_is_lost_is_created_from_the_head(client, offline):
    spool = sender().open(client, head(kind="tune", experiment_id="0"))
    spool.append("create_run", creation())
    spool.append("batch", {"tags": {"kept": "yes"}})
    for name in folders.RECORDS:
        lines = (spool.path / name).read_bytes().splitlines(keepends=True)
        (spool.path / name).write_bytes(lines[0] + b"?" + lines[1][1:] + lines[2])
    spool.close()
    sender().offline = False
    assert sync.adopt(client).left == {}
    tags = client.get_run(ids.resolve(client, spool.head.id)).data.tags
    assert (tags["fmnist.kind"], tags["kept"]) == ("tune", "yes")
    assert "record 1" in tags["fmnist.spool_damaged"]


def test_a_folder_without_a_head_is_told(client, offline):
    spool = begin(client)
    for name in folders.RECORDS:
        (spool.path / name).write_bytes(b"damaged\n")
    path = spool.path
    spool.close()
    sender().offline = False
    (told,) = sync.adopt(client).unreadable
    assert told == f"{path} does not say which run it is about; the first line of its records is damaged"
    shutil.rmtree(path)


def test_a_folder_from_elsewhere_sends_and_deletes_nothing_but_its_own_files(client, offline, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    spool = begin(client)
    number = spool.append("artifacts", {"path": ""}, files=folder(tmp_path, {"a.txt": "a", "b.txt": "secret"}))
    files = spool.path / "files" / str(number)
    (files / "b.txt").unlink()
    for name in ("b.txt", "more.txt"):  # the first has the right content
        (files / name).symlink_to(secret)
    (files / "deep").symlink_to(tmp_path, target_is_directory=True)
    (files / "extra.txt").write_text("extra")
    outside = {"path": "", "aside": str(tmp_path), "files": {"../../../secret.txt": "0" * 64}}
    spool.append("artifacts", outside)
    spool.close()
    sender().offline = False
    assert sync.adopt(client).left == {}
    run_id = ids.resolve(client, spool.head.id)
    assert [entry.path for entry in list_artifacts(run_id=run_id)] == ["a.txt"]
    assert secret.read_text() == "secret"
    damaged = client.get_run(run_id).data.tags["fmnist.spool_damaged"]
    assert damaged.endswith("file b.txt of record 2, file ../../../secret.txt of record 3.")


def test_a_copied_folder_goes_to_another_store_only_if_it_was_sent_to_none(client, offline, new_database, tmp_path):
    spool = begin(client)
    copy = Path(shutil.copytree(spool.path, tmp_path / "copy"))
    path = spool.path
    spool.close()
    other = tmp_path / "other"
    other.mkdir()
    sender().offline = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", new_database(other, str(other / "mlruns")))
        elsewhere = store.connect()
        assert sync.send(elsewhere).elsewhere == {client.tracking_uri}  # it waits for its own store
        assert path.exists()
        assert sync.send(elsewhere, copy).records == 1
        assert ids.resolve(elsewhere, spool.head.id) is not None
    assert sync.send(client).records == 1
