"""Faults that libraries report: each makes one beforehand, in the copy of a store that a command will use."""

import contextlib
import http.server
import shutil
import sqlite3
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from mlflow import MlflowClient

from fmnist_exp.export import checksums
from fmnist_exp.tracking.names import LoggedModelTag, VersionTag
from support import disks

Fault = Callable[[Path], contextlib.AbstractContextManager[dict[str, str]]]  # folder → environment variables


def sql(*statements: str, file: str = "mlflow.db") -> Fault:
    """Change a copy of the store's database."""

    @contextlib.contextmanager
    def fault(place: Path) -> Iterator[dict[str, str]]:
        with contextlib.closing(sqlite3.connect(place / file)) as database, database:
            for statement in statements:
                database.execute(statement)
        yield {}

    return fault


def files(change: Callable[[Path], object]) -> Fault:
    """Change files of the folder in which the command runs."""

    @contextlib.contextmanager
    def fault(place: Path) -> Iterator[dict[str, str]]:
        change(place)
        yield {}

    return fault


def no_database(file: str) -> Fault:
    return files(lambda place: (place / file).write_text("no database\n" * 1000))


def a_folder(file: str) -> Fault:
    def change(place: Path) -> None:
        (place / file).unlink(missing_ok=True)
        (place / file).mkdir()

    return files(change)


@contextlib.contextmanager
def locked(place: Path) -> Iterator[dict[str, str]]:
    with contextlib.closing(sqlite3.connect(place / "mlflow.db", isolation_level=None)) as database:
        database.execute("BEGIN EXCLUSIVE")
        yield {}


@contextlib.contextmanager
def read_only(place: Path) -> Iterator[dict[str, str]]:
    with disks.small(place / "disk") as disk:
        shutil.copy(place / "mlflow.db", disk.folder)
        subprocess.run(["mount", "-o", "remount,ro", str(disk.folder)], check=True)
        yield {"MLFLOW_TRACKING_URI": f"sqlite:///{disk.folder}/mlflow.db"}


def server(status: int, answer: str, passes: str = "nothing") -> Fault:
    """A server that gives the same answer to all requests but those whose path has the word `passes`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            passed = passes in self.path
            body = b"{}" if passed else answer.encode()
            self.send_response(200 if passed else status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PATCH = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    @contextlib.contextmanager
    def fault(place: Path) -> Iterator[dict[str, str]]:
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
            threading.Thread(target=running.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{running.server_port}"
            yield {"MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
            running.shutdown()

    return fault


def model(name: str, change: Callable[[Path], object]) -> Fault:
    """Change a file of version 1, with checksums that fit, so that the reader of the file meets it."""

    @contextlib.contextmanager
    def fault(place: Path) -> Iterator[dict[str, str]]:
        client = MlflowClient(f"sqlite:///{place}/mlflow.db")
        version = client.get_model_version("fashion-mnist", "1")
        folder = Path(shutil.copytree(mlflow_folder(client, version.model_id or version.source), place / "model"))
        change(folder / name)
        digest = checksums.write(folder)
        client.set_model_version_tag("fashion-mnist", "1", VersionTag.SHA256, digest)
        client.set_logged_model_tags(model_id(version.source), {str(LoggedModelTag.SHA256): digest})
        with contextlib.closing(sqlite3.connect(place / "mlflow.db")) as database, database:
            change_place = "UPDATE logged_models SET artifact_location = ? WHERE model_id = ?"
            database.execute(change_place, [str(folder), model_id(version.source)])
        yield {}

    return fault


def model_id(source: str) -> str:
    return source.rpartition("/")[2]


def mlflow_folder(client: MlflowClient, source: str) -> str:
    return str(client.get_logged_model(model_id(source)).artifact_location)


def half(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def half_of_the_weights(file: Path) -> None:
    """Cut what is inside the file short; the file itself stays a whole archive."""
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["model.weights.h5"] = parts["model.weights.h5"][:4000]
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)


def artifacts(change: Callable[[Path], object]) -> Fault:
    """Change a copy of the artifacts of all runs."""

    @contextlib.contextmanager
    def fault(place: Path) -> Iterator[dict[str, str]]:
        client = MlflowClient(f"sqlite:///{place}/mlflow.db")
        for run in client.search_runs(["0"], "tags.`fmnist.kind` = 'train'"):
            copy = Path(shutil.copytree(run.info.artifact_uri, place / run.info.run_id))
            change(copy)
            with contextlib.closing(sqlite3.connect(place / "mlflow.db")) as database, database:
                change_place = "UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?"
                database.execute(change_place, [str(copy), run.info.run_id])
        yield {}

    return fault


def tables(revision: str) -> Fault:
    return sql(f"UPDATE alembic_version SET version_num = '{revision}'")


@contextlib.contextmanager
def later_studies(place: Path) -> Iterator[dict[str, str]]:
    import optuna

    optuna.create_study(study_name="mine", storage=f"sqlite:///{place}/studies.db")
    later = "UPDATE version_info SET schema_version = 99, library_version = '9.9.9'"
    with sql(later, "UPDATE alembic_version SET version_num = 'v9.9.9.a'", file="studies.db")(place):
        yield {}
