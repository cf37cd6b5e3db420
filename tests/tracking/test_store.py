"""Tracking stores that cannot be used are refused at once, in one sentence."""

import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import mlflow
import pytest

from fmnist_exp.errors import RequestError
from fmnist_exp.tracking import store


def refused(monkeypatch, uri: str) -> str:
    """Return what connect() says within half a minute; it runs in a thread, since a wrong one may take minutes."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    errors: list[BaseException] = []

    def connect() -> None:
        try:
            store.connect()
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=connect, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "still trying after 30 s"
    (error,) = errors
    assert isinstance(error, RequestError), repr(error)
    assert "\n" not in str(error)
    assert "hunter2" not in str(error)
    return str(error)


def test_a_server_that_is_not_there(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = refused(monkeypatch, f"http://me:hunter2@127.0.0.1:{port}")
    assert said == f"the tracking server http://***@127.0.0.1:{port} does not answer; is MLFLOW_TRACKING_URI right?"


def test_a_server_that_never_answers(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "does not answer" in refused(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")


SAID = {
    200: "cannot be used",
    401: "refuses the credentials (HTTP status 401); set MLFLOW_TRACKING_USERNAME",
    403: "refuses the credentials (HTTP status 403)",
    404: "cannot be used",
    503: "does not answer",
}


@pytest.mark.parametrize("status", SAID)
def test_a_server_that_is_not_mlflow_or_refuses(monkeypatch, status):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"hello")

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        said = refused(monkeypatch, f"http://me:hunter2@127.0.0.1:{server.server_port}")
        server.shutdown()
    assert f"http://***@127.0.0.1:{server.server_port} {SAID[status]}" in said


@pytest.mark.parametrize("uri", ["ftp://me:hunter2@host/x", "postgresql://me:hunter2@127.0.0.1:1/x", "./mlruns"])
def test_a_store_of_a_kind_that_does_not_work_here(monkeypatch, tmp_path, uri):
    monkeypatch.chdir(tmp_path)
    refused(monkeypatch, uri)


def test_a_database_where_no_folder_can_be(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    said = refused(monkeypatch, f"sqlite:///{tmp_path}/file/mlflow.db")
    assert said.startswith(f"the tracking store sqlite:///{tmp_path}/file/mlflow.db cannot be used: ")


def test_a_read_only_database(monkeypatch, tmp_path, new_database):
    """Opened by SQLite's own read-only mode, which binds root too."""
    new_database(tmp_path, str(tmp_path / "mlruns"))
    said = refused(monkeypatch, f"sqlite:///file:{tmp_path}/mlflow.db?mode=ro&uri=true")
    assert "read" in said


def test_a_file_that_is_no_database(monkeypatch, tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"no database " * 100)
    assert "not a database" in refused(monkeypatch, f"sqlite:///{tmp_path}/mlflow.db")


def test_connect_writes_no_run(shared_store):
    before = len(mlflow.MlflowClient().search_runs(["0"], max_results=1000))
    assert len(store.connect().search_runs(["0"], max_results=1000)) == before


ADDRESS = "http://me:hunter2@127.0.0.1:9/x"


def test_an_address_travels_without_its_secrets(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", ADDRESS)
    assert store.address() == "http://***@127.0.0.1:9/x"
    store.use("http://***@127.0.0.1:9/x")
    with pytest.raises(RequestError, match=r"tracking server http://.* does not answer"):  # it uses its own
        store.connect()
    with pytest.raises(
        RequestError, match=r"set MLFLOW_TRACKING_URI to http://\*\*\*@127.0.0.1:10/x here too"
    ) as error:
        store.use("http://***@127.0.0.1:10/x")
    assert "hunter2" not in str(error.value)
