"""Passwords reach nothing that is written or sent: canaries go through every entry point; then all is searched."""

import gc
import logging
import pickle
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import optuna
import psycopg
import pytest
from support import canaries, certificates, searches, services, standin
from support.canaries import WORD, encoded, environment, secret

from fmnist_exp import cli
from fmnist_exp.errors import RequestError
from fmnist_exp.tracking import redact, store
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tuning.workers import study_lock, trial

needs_postgres = pytest.mark.skipif(not services.has_postgres(), reason="needs PostgreSQL: apt-get install postgresql")

ENTRIES = {
    "main": ["--training.precision", "float32"],
    "train": ["--experiment", "mlp"],
    "baseline": [],
    "mlp": [],
    "cnn": ["--training.precision", "float32"],
    "tune": ["--experiment", "tune_mlp", "--workers", "1"],
    "ensemble": ["--members", "models:/fashion-mnist/1,models:/fashion-mnist/2"],
    "evaluate": [],
    "promote": [],
    "serve": ["--port", "0"],
}
ALL = ", ".join(ENTRIES)
OTHER = {  # secrets that no command needs
    "HTTP_PROXY": f"http://me:{encoded('Proxy')}@127.0.0.1:9",
    "https_proxy": f"http://me:{encoded('Proxy')}@127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
    "AWS_SECRET_ACCESS_KEY": secret("Key"),
    "MLFLOW_S3_ENDPOINT_URL": f"http://me:{secret('S3')}@127.0.0.1:9",
}

Ran = tuple[int, str]  # exit code; standard output and standard error
Command = Callable[..., Ran]


@pytest.fixture(autouse=True)
def hooks_of_pytest() -> Iterator[None]:
    """Put back what the command line installs in its process."""
    before = sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning
    factory, told = logging.getLogRecordFactory(), set(redact._told)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    gc.enable()  # `serve` disables it
    logging.captureWarnings(False)
    sys.excepthook, sys.unraisablehook, threading.excepthook, warnings.showwarning = before
    logging.setLogRecordFactory(factory)
    redact._told.clear()
    redact._told.update(told)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def command(capfd, tmp_path, monkeypatch) -> Iterator[Command]:
    """Run commands in this process, in a folder of their own, with canaries in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    written = []

    def run(*words: str, **variables: str) -> Ran:
        with environment(**{**OTHER, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", **variables}):
            logs = logging.StreamHandler(sys.stderr)  # pytest's handlers keep `cli.run` from adding its own
            logging.getLogger().addHandler(logs)
            with pytest.raises(SystemExit) as ended:
                cli.run(words)
            logging.getLogger().removeHandler(logs)
        shown = "".join(capfd.readouterr())
        written.append(shown)
        return int(ended.value.code or 0), shown

    yield run
    assert not [text for text in written if canaries.in_bytes(text.encode())]
    assert canaries.files_with_canaries(tmp_path) == []


def one_sentence(ran: Ran, code: int) -> str:
    """Return the last line, the error, after checking the exit code and that there is no traceback."""
    assert ran[0] == code, ran[1]
    assert "Traceback" not in ran[1]
    errors = [line for line in ran[1].splitlines() if line.startswith("fmnist-exp: ")]
    assert len(errors) == 1, ran[1]
    return errors[0]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


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
    uri = f"http://me:{spelled}@127.0.0.1:{closed_port()}"
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


# with PostgreSQL, and a real MLflow server with TLS in front of it


@dataclass(frozen=True)
class Site:
    """A tracking server and databases, whose addresses have passwords, and their folder."""

    folder: Path
    databases: str  # without a password, of the superuser
    host: str  # of the databases
    tracking: str
    authority: Path  # file with the certificate that signed the server's

    @property
    def storage(self) -> str:
        return f"postgresql+psycopg://guarded:{encoded('Storage')}@{self.host}/studies"

    @property
    def settings(self) -> dict[str, str]:
        own = {"MLFLOW_TRACKING_URI": self.tracking, "MLFLOW_TRACKING_SERVER_CERT_PATH": str(self.authority)}
        return {**OTHER, **own, "TMPDIR": str(self.folder)}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    certificates.write(folder)
    with ExitStack() as stack:
        databases = stack.enter_context(services.postgres(folder, port=closed_port()))
        with psycopg.connect(databases.replace("+psycopg", "") + "/studies", autocommit=True) as connection:
            connection.execute("CREATE ROLE guarded LOGIN PASSWORD '{}'".format(secret("Storage")))
            connection.execute("ALTER DATABASE studies OWNER TO guarded")
            connection.execute("GRANT ALL ON SCHEMA public TO guarded")
        server = services.mlflow_server(folder, f"{databases}/mlflow", "127.0.0.1", closed_port(), tls=True)
        address = stack.enter_context(server).replace("https://", f"https://me:{encoded('Server')}@")
        yield Site(folder, databases, databases.partition("@")[2], address, folder / "authority.pem")


class Diary(searches.searching.SearchCallback):
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def on_trial_end(self, trial: Any) -> None:
        self.reasons.append(trial.reason)


@needs_postgres
@pytest.mark.attack(
    "passwords in a search in two processes whose trials fail", entry="tune", result="not written or sent"
)
def test_a_search_of_failing_workers(site, capfd, monkeypatch, data):
    monkeypatch.chdir(site.folder)
    diary = Diary()
    with environment(**site.settings), canaries.ProcessList() as processes:
        request = {"storage": site.storage, "objective": canaries.leaking, "callback": diary}
        result = standin.search(standin.configure(2, training__epochs=1), "failing", **request)
        parent = store.client().get_run(result.run_id)
        needs = trial.requirements_of(standin.configure(), data)
    assert result.states == {"COMPLETE": 0, "PRUNED": 0, "FAIL": 2}
    assert all("a connection failed: 404" in reason and "https://***@127.0.0.1" in reason for reason in diary.reasons)
    assert parent.info.status == "FINISHED"
    assert needs.tracking_uri.startswith("https://***@127.0.0.1:")
    assert not canaries.in_bytes(pickle.dumps(needs))
    assert len([line for line in processes.seen if "multiprocessing" in line]) >= 2
    assert not [line for line in processes.seen if WORD in line]
    assert not canaries.in_bytes("".join(capfd.readouterr()).encode())


@needs_postgres
@pytest.mark.attack("passwords in a search that registers a model", entry="tune", result="not written or sent")
def test_a_search_that_succeeds(site, capfd, monkeypatch, small):
    monkeypatch.chdir(site.folder)
    config = searches.configure(search__n_trials=1, training__epochs=1)
    with environment(**site.settings), canaries.ProcessList() as processes:
        found = searches.search(config, "whole", data=small, storage=site.storage)
        note = found.parent.data.tags[Tag.NOTE]
    assert found.result.registration is not None
    assert "--storage 'postgresql+psycopg://***@" in note
    assert not [line for line in processes.seen if WORD in line]
    assert not canaries.in_bytes("".join(capfd.readouterr()).encode())


@needs_postgres
@pytest.mark.attack("passwords of databases that refuse, or are locked", entry="tune, mlp", result="not written")
def test_databases_that_refuse(site, command, data):
    wrong = f"postgresql+psycopg://guarded:{encoded('Wrong')}@{site.host}"
    raw = f"postgresql+psycopg://guarded:{secret('Wrong')}@{site.host}"
    missing = site.storage.replace("/studies", "/nothing")
    tune = ["tune", *ENTRIES["tune"], "--study", "refused"]
    for storage in (f"{wrong}/studies", f"{raw}/studies", missing, f"{missing}?sslpassword={encoded('Ssl')}"):
        said = one_sentence(command(*tune, FMNIST_EXP_STORAGE=storage, **site.settings), cli.WRONG_REQUEST)
        assert "the study database" in said
        said = one_sentence(command("mlp", MLFLOW_TRACKING_URI=storage), cli.WRONG_REQUEST)
        assert "the tracking store" in said
    with study_lock.hold(site.storage, "refused"):
        said = one_sentence(command(*tune, "--storage", site.storage, **site.settings), cli.WRONG_REQUEST)
    assert "is being run by process" in said


@needs_postgres
@pytest.mark.attack(
    "passwords in what evaluate, promote, ensemble and serve log", entry="evaluate, promote", result="not written"
)
def test_versions(site, command, data):
    """After `test_a_search_that_succeeds`, which registered the version."""
    with environment(**site.settings):
        if not mlflow.MlflowClient().search_model_versions():
            pytest.skip("no version was registered")
    code, shown = command("promote", "--force", **site.settings)
    assert code == cli.DONE, shown
    members = "models:/fashion-mnist/1,models:/fashion-mnist/7"
    one_sentence(command("ensemble", "--members", members, **site.settings), cli.WRONG_REQUEST)
    one_sentence(command("serve", "--model", "models:/fashion-mnist/7", **site.settings), cli.WRONG_REQUEST)


@needs_postgres
@pytest.mark.attack(
    "passwords in all that the searches wrote", entry="tune, promote, ensemble, serve", result="not written"
)
def test_nothing_that_was_written_has_a_secret(site):
    """It is the last test of these servers."""
    assert len(list(site.folder.rglob("*"))) > 10
    assert optuna.get_all_study_names(f"{site.databases}/studies")
    assert canaries.files_with_canaries(site.folder) == []
    for database in ("mlflow", "studies"):
        assert canaries.rows_with_canaries(f"{site.databases}/{database}") == []


# MLflow's TLS settings


@needs_postgres
def test_our_requests_trust_whom_mlflow_trusts(site, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", site.tracking)
    with pytest.raises(
        RequestError, match="set MLFLOW_TRACKING_SERVER_CERT_PATH to the file of the authority"
    ) as refused:
        store.connect()
    assert "certificate verify failed" in str(refused.value)
    assert WORD not in str(refused.value)
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(site.authority))
    assert store.connect().search_experiments()
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(site.folder / "none.pem"))
    with pytest.raises(RequestError, match=r"none\.pem"):
        store.connect()


@needs_postgres
@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")  # it is what the setting asks for
def test_our_requests_check_no_certificate_if_mlflow_checks_none(site, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", site.tracking)
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    assert store.connect().search_experiments()
