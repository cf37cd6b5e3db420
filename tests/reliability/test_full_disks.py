"""Full disks under each entry point: one sentence, nothing half-written, and the same command succeeds afterwards."""

from signal import SIGKILL

import mlflow
import pytest
from support import disks

MADE = {"FINISHED", "FAILED", "KILLED"}
SMALL = ["--model.widths", "[8]", "--training.epochs", "1", "--training.batch_size", "50"]


@pytest.mark.parametrize("leave", [pytest.param(0, marks=pytest.mark.slow), 300_000])
def test_a_store_whose_creation_ran_out_of_disk_is_created_later(commands, tmp_path, leave):
    with disks.small(tmp_path / "disk") as disk:
        store = {"folder": disk.folder, "MLFLOW_TRACKING_URI": f"sqlite:///{disk.folder}/mlflow.db"}
        disk.fill(leave)
        done = commands.run("promote", **store)
        assert (done.code, done.error.partition(" (")[0]) == (1, "the disk is full")
        assert done.error.endswith("make room, then run the command again")
        disk.make_room()
        done = commands.run("promote", **store)
        assert (done.code, "none is registered yet" in done.error) == (2, True)


def test_a_store_whose_creation_was_killed_is_created_later(commands, tmp_path):
    store = {"folder": tmp_path, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    for function in ("alembic.operations.batch.ApplyBatchImpl._create", "os.replace"):
        assert commands.run("promote", press=[function, 1, SIGKILL], **store).code == -SIGKILL
        assert not (tmp_path / "mlflow.db").exists()
    done = commands.run("promote", **store)
    assert (done.code, "none is registered yet" in done.error) == (2, True)


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--experiment", "tiny"],
        pytest.param(["tune", "--experiment", "tiny", "--workers", "1"], marks=pytest.mark.slow),
        pytest.param(["mlp", *SMALL], marks=pytest.mark.slow),
        pytest.param(["baseline", *SMALL], marks=pytest.mark.slow),
    ],
    ids=lambda command: command[0],
)
def test_store_artifacts_study_and_spool_on_one_full_disk(commands, tiny, folder, tmp_path, new_database, command):
    words = [str(tiny) if word == "tiny" else word for word in command] + ["--data.source", folder]
    with disks.small(tmp_path / "disk") as disk:
        uri = new_database(disk.folder, str(disk.folder / "mlruns"))
        place = {"folder": disk.folder, "MLFLOW_TRACKING_URI": uri, "FMNIST_EXP_SEND_SECONDS": "2"}
        disk.fill(150_000)
        done = commands.run(*words, **place)
        assert done.code == 1, done.printed
        assert done.error.startswith("the disk is full")
        assert "make room" in done.error
        disk.make_room()
        done = commands.run(*words, **place)
        assert done.code == 0, done.printed
        client = mlflow.MlflowClient(uri)
        assert {run.info.status for run in client.search_runs(["0"])} <= MADE
        assert {str(model.status) for model in client.search_logged_models(["0"])} <= {"READY", "FAILED"}


def test_a_full_temporary_folder(commands, tiny, tmp_path, new_database):
    uri = new_database(tmp_path, str(tmp_path / "mlruns"))
    with disks.small(tmp_path / "disk") as disk:
        disk.fill(20_000)
        place = {"folder": tmp_path, "MLFLOW_TRACKING_URI": uri, "TMPDIR": str(disk.folder)}
        done = commands.run("train", "--experiment", str(tiny), **place)
        assert done.code == 1, done.printed
        assert done.error.startswith("the disk is full")
        (run,) = mlflow.MlflowClient(uri).search_runs(["0"])
        assert (run.info.status, run.data.tags["fmnist.error"]) == ("FAILED", done.error)
        assert set(disk.folder.iterdir()) <= {disk.folder / "filler"}


@pytest.mark.slow
def test_the_disk_of_the_store_alone_is_full(commands, tiny, tmp_path, new_database):
    with disks.small(tmp_path / "disk") as disk:
        uri = new_database(disk.folder, str(disk.folder / "mlruns"))
        place = {"folder": tmp_path, "MLFLOW_TRACKING_URI": uri, "FMNIST_EXP_SEND_SECONDS": "2"}
        disk.fill()
        words = ["train", "--experiment", str(tiny)]
        done = commands.run(*words, **place)
        assert (done.code, "disk is full" in done.printed) == (0, True), done.printed
        assert "send them with: fmnist-exp sync" in done.printed
        disk.make_room()
        assert commands.run("sync", **place).code == 0
        client = mlflow.MlflowClient(uri)
        assert [run.info.status for run in client.search_runs(["0"])] == ["FINISHED"]
        assert [str(model.status) for model in client.search_logged_models(["0"])] == ["READY"]
        assert not (tmp_path / "spool").exists()
