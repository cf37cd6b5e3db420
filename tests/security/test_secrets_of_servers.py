"""Passwords of an MLflow server with TLS and of PostgreSQL reach nothing that searches and commands write or send."""

import pickle
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import optuna
import psycopg
import pytest
from support import canaries, certificates, searches, services, standin
from support.canaries import WORD, encoded, environment, secret
from support.commands import ENTRIES, OTHER, one_sentence

from fmnist_exp import cli
from fmnist_exp.errors import RequestError
from fmnist_exp.tracking import store
from fmnist_exp.tracking.names import Tag
from fmnist_exp.tuning.workers import study_lock, trial

pytestmark = [
    pytest.mark.usefixtures("hooks_of_pytest"),
    pytest.mark.skipif(not services.has_postgres(), reason="needs PostgreSQL: apt-get install postgresql"),
]


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
        databases = stack.enter_context(services.postgres(folder, port=services.free_port()))
        with psycopg.connect(databases.replace("+psycopg", "") + "/studies", autocommit=True) as connection:
            connection.execute("CREATE ROLE guarded LOGIN PASSWORD '{}'".format(secret("Storage")))
            connection.execute("ALTER DATABASE studies OWNER TO guarded")
            connection.execute("GRANT ALL ON SCHEMA public TO guarded")
        server = services.mlflow_server(folder, f"{databases}/mlflow", "127.0.0.1", services.free_port(), tls=True)
        address = stack.enter_context(server).replace("https://", f"https://me:{encoded('Server')}@")
        yield Site(folder, databases, databases.partition("@")[2], address, folder / "authority.pem")


class Diary(searches.searching.SearchCallback):
    def __init__(self) -> None:
        self.reasons: list[str] = []

    def on_trial_end(self, trial: Any) -> None:
        self.reasons.append(trial.reason)


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


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")  # it is what the setting asks for
def test_our_requests_check_no_certificate_if_mlflow_checks_none(site, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", site.tracking)
    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    assert store.connect().search_experiments()
