"""A tracking server whose disk is full: the work goes on, and everything is sent once and whole after room is made."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import LoggedModelStatus
from support import disks, services
from support.disks import Disk

from fmnist_exp.registry import private_copy
from fmnist_exp.tracking.spool import folder as folders
from fmnist_exp.tracking.spool import records

RUNS = {"train": ["train"], "tune": ["trial", "trial", "tune"]}  # kinds of the runs that a command makes
Sums = dict[tuple[str, str], str]  # SHA-256 of files by the local id of their run and their path


@dataclass(frozen=True)
class Server:
    """An MLflow server that keeps its database on one small disk, and the artifacts and its log on another."""

    address: str
    database: Disk
    artifacts: Disk


@pytest.fixture(scope="module")
def server(tmp_path_factory, new_database) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    with disks.small(folder / "database") as database, disks.small(folder / "files") as files:
        uri = new_database(database.folder, "mlflow-artifacts:/0")
        with services.mlflow_server(files.folder, uri, "127.0.0.1", services.free_port()) as address:
            yield Server(address, database, files)


@pytest.fixture
def full(server, request) -> Iterator[Disk]:
    """The disk of the server that a test fills."""
    disk = getattr(server, request.param)
    yield disk
    disk.make_room()


@pytest.mark.parametrize(
    ("name", "full", "leave"),
    [
        ("train", "database", 0),
        pytest.param("train", "artifacts", 150_000, marks=pytest.mark.slow),
        pytest.param("tune", "database", 40_000, marks=pytest.mark.slow),
        pytest.param("tune", "artifacts", 0, marks=pytest.mark.slow),
    ],
    indirect=["full"],
)
def test_the_disk_of_a_server_is_full(server, full, commands, tiny, tmp_path, request, name, leave):
    place = {"folder": tmp_path, "MLFLOW_TRACKING_URI": server.address, "MLFLOW_EXPERIMENT_NAME": request.node.name}
    client = mlflow.MlflowClient(server.address, server.address)
    experiment = client.create_experiment(request.node.name)
    full.fill(leave)
    options = ["--workers", "1"] if name == "tune" else []
    done = commands.run(name, "--experiment", str(tiny), *options, FMNIST_EXP_SEND_SECONDS="2", **place)
    assert done.code == 0, done.printed
    assert "Traceback" not in done.printed
    assert f"of {tmp_path}/spool because" in done.printed
    assert "send them with: fmnist-exp sync" in done.printed
    kept = sums_of(tmp_path / "spool")
    assert kept
    full.make_room()
    sent = commands.run("sync", **place)
    assert sent.code == 0, sent.printed
    assert not (tmp_path / "spool").exists()
    check(client, experiment, RUNS[name], kept)
    again = commands.run("sync", **place)
    assert (again.code, again.printed.split("records sent")[1].split()[-1]) == (0, "0")


def check(client: mlflow.MlflowClient, experiment: str, kinds: list[str], kept: Sums) -> None:
    """Every run is there once and FINISHED, its files are those that were kept, and its model is READY and whole."""
    runs = client.search_runs([experiment])
    assert sorted(run.data.tags["fmnist.kind"] for run in runs) == kinds
    assert {run.info.status for run in runs} == {"FINISHED"}
    fitted = [run for run in runs if run.data.tags["fmnist.kind"] != "tune"]
    for run in fitted:
        assert [point.step for point in client.get_metric_history(run.info.run_id, "val_accuracy")] == [1]
    models = client.search_logged_models([experiment])
    assert sorted(model.source_run_id for model in models) == sorted(run.info.run_id for run in fitted)
    for model in models:
        assert model.status == LoggedModelStatus.READY
        with private_copy.opened(client, model.model_id):
            pass  # its files match their checksums
    ids = {run.data.tags["fmnist.spool_id"]: run.info.run_id for run in runs}
    for (local, path), digest in kept.items():
        copy = mlflow.artifacts.download_artifacts(
            run_id=ids[local], artifact_path=path, tracking_uri=client.tracking_uri
        )
        assert folders.checksum(Path(copy)) == digest, path


def sums_of(spool: Path) -> Sums:
    """Return the checksums of the runs' files that wait in a spool; the newest record of a file counts."""
    found: Sums = {}
    for folder in folders.all_paths(spool):
        written = records.read(folder / name for name in folders.RECORDS)
        for record in written.values():
            if record.kind == "artifacts":
                below = f"{record.body['path']}/" if record.body["path"] else ""
                found |= {(written[0].body["id"], below + name): sum for name, sum in record.body["files"].items()}
    return found
