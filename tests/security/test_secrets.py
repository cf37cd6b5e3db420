"""Passwords reach nothing that is written or sent: canaries go through every entry point; then all is searched."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support import services
from support.canaries import encoded, secret
from support.commands import ALL, ENTRIES, one_sentence

from fmnist_exp import cli
from fmnist_exp.tuning.workers import study_lock


@pytest.fixture
def failing_server() -> Iterator[str]:
    """A tracking server that answers when a command connects, and fails at everything else."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"] or 0))
            found = self.path.endswith("/experiments/search")
            self.send_response(200 if found else 500)
            self.end_headers()
            self.wfile.write(b'{"experiments": []}' if found else f"no {self.path}".encode())

        do_GET = do_POST = do_PATCH = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.attack("a password in the address of a tracking server that is away", entry=ALL, result="not written")
@pytest.mark.parametrize(
    "spelled", [encoded("Uri"), secret("Uri").replace("?", "").replace("#", "")], ids=["url", "raw"]
)
def test_a_server_that_is_away(data, command, spelled):
    uri = f"http://me:{spelled}@127.0.0.1:{services.free_port()}"
    for name, options in ENTRIES.items():
        one_sentence(command(name, *options, MLFLOW_TRACKING_URI=uri), cli.WRONG_REQUEST)


@pytest.mark.attack("a password in the address of a tracking server that fails", entry=ALL, result="not written")
def test_a_server_that_fails_later(data, command, failing_server):
    credentials = {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": secret("Env")}
    settings = {"MLFLOW_TRACKING_URI": f"http://me:{encoded('Uri')}@{failing_server}", **credentials}
    for name, options in ENTRIES.items():
        said = one_sentence(command(name, *options, **settings), cli.WORK_FAILED)
        assert "the tracking store failed" in said
        assert "run the command again" in said
    code, shown = command("mlp", "--debug", **settings)
    assert code == cli.WORK_FAILED
    assert "Traceback" in shown
    assert "MlflowException" in shown


@pytest.mark.attack("a password in --storage of a search that fails", entry="tune", result="not written")
def test_the_command_that_resumes_a_search(data, command, failing_server, tmp_path):
    storage = f"sqlite:///file:{tmp_path}/studies.db?uri=true&token={encoded('Token')}"
    words = ["tune", *ENTRIES["tune"], "--storage", storage, "--study", 'it\'s "it"']
    code, shown = command(*words, MLFLOW_TRACKING_URI=f"http://{failing_server}")
    assert code == cli.WORK_FAILED
    assert "an option has a password, which other users of this machine can read" in shown
    (resume,) = [line for line in shown.splitlines() if line.startswith("to continue: ")]
    assert "token=***" in resume
    assert "in the place of ***" in resume


@pytest.mark.attack("a password in the address of a proxy that is away", entry="mlp", result="not written")
def test_a_proxy_that_is_away(data, command):
    uri = f"http://me:{encoded('Uri')}@mlflow.invalid:5000"  # which nobody asks for, as the proxy does not answer
    one_sentence(command("mlp", MLFLOW_TRACKING_URI=uri, NO_PROXY="", no_proxy=""), cli.WRONG_REQUEST)


@pytest.mark.attack("a token in the database's address, and a bug", entry="tune", result="not written")
def test_a_bug_is_one_sentence_that_names_debug(data, command, store, monkeypatch):
    def broken(*_: object) -> None:
        raise KeyError(f"a bug with {secret('Token')}")

    monkeypatch.setattr(study_lock, "abandoned", broken)
    storage = f"sqlite:///studies.db?access_token={encoded('Token')}"
    said = one_sentence(command("tune", *ENTRIES["tune"], FMNIST_EXP_STORAGE=storage), cli.WORK_FAILED)
    assert "an unexpected KeyError ended the command" in said
    assert "--debug" in said
    code, shown = command("tune", *ENTRIES["tune"], FMNIST_EXP_STORAGE=storage, FMNIST_EXP_DEBUG="1")
    assert (code, "Traceback" in shown) == (cli.WORK_FAILED, True)


@pytest.mark.attack("passwords in the environment of work that succeeds", entry="mlp", result="not written")
def test_a_run_on_an_embedded_store(data, command, new_database, tmp_path):
    uri = new_database(tmp_path, str(tmp_path / "mlruns"))
    settings = {"MLFLOW_TRACKING_URI": uri, "FMNIST_EXP_STORAGE": f"postgresql://me:{secret('Storage')}@h/x"}
    code, shown = command("mlp", "--training.epochs", "1", "--model.widths", "[8]", **settings)
    assert code == cli.DONE, shown
