"""An MLflow server as docs/how-to/run-on-a-cluster.md starts it: with users, over TLS. Who may do what there."""

import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from support import servers, services
from support.searches import configure

from fmnist_exp.cli import main
from fmnist_exp.data import dataset
from fmnist_exp.errors import RequestError
from fmnist_exp.experiment.run import run_experiment
from fmnist_exp.registry import versions
from fmnist_exp.tracking import failures, orphans, store
from fmnist_exp.tracking import run as runs
from fmnist_exp.tuning import search
from fmnist_exp.tuning.search import SearchRequest

PASSWORDS = {name: secrets.token_urlsafe(12) for name in ("admin", "editor", "reader")}
USERS = """[mlflow]
default_permission = READ
database_uri = sqlite:///users.db
admin_username = admin
auth_cache_ttl_seconds = 60
"""
VERSION = f"models:/{versions.NAME}/1"


def log_in(patch: pytest.MonkeyPatch, name: str, password: str | None = None) -> None:
    patch.setenv("MLFLOW_TRACKING_USERNAME", name)
    patch.setenv("MLFLOW_TRACKING_PASSWORD", password or PASSWORDS[name])


def administer(address: str, certificate: Path, route: str, **fields: str) -> None:
    """Do what the page does with curl."""
    url, auth = f"{address}/api/{route}", ("admin", PASSWORDS["admin"])
    answer = requests.post(url, json=fields, auth=auth, verify=str(certificate), timeout=60)
    assert answer.ok, answer.text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """The certificate of the server, made by the command of the page in the folder of the server."""
    folder = tmp_path_factory.mktemp("server")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:3072", "-nodes", "-days", "365", "-subj", "/CN=head"]
    command += ["-addext", "subjectAltName=DNS:head,IP:127.0.0.1", "-keyout", "server.key", "-out", "server.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return Path(shutil.copy(folder / "server.pem", folder / "authority.pem"))


@pytest.fixture(scope="module")
def server(new_database, certificate) -> Iterator[str]:
    """The server, with an experiment of the administrator in which the editor may write."""
    folder = certificate.parent
    (folder / "users.ini").write_text(USERS)
    users = {
        "MLFLOW_AUTH_CONFIG_PATH": "users.ini",
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORDS["admin"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),
    }
    port = services.free_port()
    database = new_database(folder, "mlflow-artifacts:/0")
    started = services.mlflow_server(folder, database, "127.0.0.1", port, tls=True, **users)
    with started as address, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", address)
        patch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "fashion")
        log_in(patch, "admin")
        experiment = MlflowClient().create_experiment("fashion")
        grant = {"resource_type": "experiment", "resource_id": experiment, "permission": "EDIT"}
        for name in ("editor", "reader"):
            administer(address, certificate, "2.0/mlflow/users/create", username=name, password=PASSWORDS[name])
        administer(address, certificate, "3.0/mlflow/users/permissions/grant", username="editor", **grant)
        yield address


@pytest.fixture(scope="module")
def written(server, folder, tmp_path_factory) -> dict[str, str]:
    """Write as a user who may edit: a single run, and a search of two trials that registers a version."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMNIST_EXP_CACHE", str(tmp_path_factory.mktemp("cache")))
        log_in(patch, "editor")
        config = configure(data__source=folder, search__n_trials=2)
        data = dataset.load(config.data, config.seed)
        with runs.closing(runs.start_run(store.connect(), "train", "one", "one")) as run:
            model = run_experiment(config, data, run, score_test=True).model_id
        result = search.run(SearchRequest(config=config, workers=1, data=data))
        versions.register(run.client, model, run.id, {})  # version 2
        return {"run": run.id, "parent": result.run_id}


def test_a_user_who_may_edit_trains_searches_and_registers(server, written, monkeypatch):
    log_in(monkeypatch, "editor")
    client = store.connect()
    assert client.get_run(written["run"]).info.status == "FINISHED"
    assert client.get_run(written["parent"]).info.status == "FINISHED"
    assert client.get_model_version(versions.NAME, "1").run_id
    lost = runs.start_run(client, "trial", "lost", "lost")  # by a worker that was killed
    orphans.discard(lost, lost.id)
    assert lost.delivered()
    left = client.get_run(lost.id).info
    assert (left.status, left.lifecycle_stage) == ("KILLED", "active")  # EDIT is not enough to delete it


@pytest.mark.attack("reading the tracking server without an account", entry="all routes that commands use")
@pytest.mark.parametrize("route", ["experiments/search?max_results=1", "registered-models/search", "artifacts"])
def test_strangers_read_nothing(server, certificate, written, route):
    url = f"{server}/api/2.0/mlflow/{route}"
    if route == "artifacts":
        url = f"{server}/api/2.0/mlflow-artifacts/artifacts?path=1"
    for credentials in (None, ("editor", "wrong"), ("nobody", PASSWORDS["editor"])):
        assert requests.get(url, auth=credentials, verify=str(certificate), timeout=30).status_code == 401
    assert requests.get(url, auth=("reader", PASSWORDS["reader"]), verify=str(certificate), timeout=30).ok


COMMANDS = {
    "train": ["--experiment", "mlp", "--training.batch_size", "50"],
    "ensemble": ["--members", f"{VERSION},{VERSION}"],
    "tune": ["--experiment", "tune_mlp", "--workers", "1"],
    "evaluate": ["--model", VERSION],
    "promote": ["--version", "2", "--force"],
    "serve": ["--model", VERSION, "--port", "0"],
}


def refusal(name: str, *more: str) -> str:
    with pytest.raises(RequestError) as refused:  # exit code 2
        main.main([name, *COMMANDS[name], *more], standalone_mode=False)
    said = str(refused.value)
    assert "\n" not in said
    return said


@pytest.mark.attack(
    "a command without or with wrong credentials", entry="train, tune, ensemble, evaluate, promote, serve"
)
@pytest.mark.parametrize("name", COMMANDS)
def test_without_the_right_credentials_a_command_ends_with_one_sentence(server, written, name, monkeypatch, data):
    log_in(monkeypatch, "editor", "another password")
    assert "refuses the credentials" in refusal(name)
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    said = refusal(name)
    assert "refuses the credentials (HTTP status 401); set MLFLOW_TRACKING_USERNAME and" in said


@pytest.mark.attack("writing as a user who may only read", entry="train, tune, evaluate, promote")
@pytest.mark.parametrize("name", ["train", "tune", "evaluate", "promote"])
def test_a_user_who_may_only_read_cannot_write(server, written, name, folder, monkeypatch, tmp_path):
    log_in(monkeypatch, "reader")
    monkeypatch.setenv("FMNIST_EXP_CACHE", str(tmp_path))
    before = MlflowClient().search_runs(["1"])
    assert "lets this user only read the experiment with the id 1; ask for the permission EDIT" in refusal(
        name, "--data.source", folder
    )
    assert [run.info.run_id for run in MlflowClient().search_runs(["1"])] == [run.info.run_id for run in before]


def test_a_user_who_may_only_read_cannot_change_versions_or_files(server, written, certificate, monkeypatch):
    log_in(monkeypatch, "reader")
    with pytest.raises(MlflowException) as refused:
        MlflowClient().set_registered_model_alias(versions.NAME, versions.CHAMPION, "1")
    assert failures.explain(refused.value).endswith("ask for the permission EDIT")
    file = f"{server}/api/2.0/mlflow-artifacts/artifacts/1/{written['run']}/artifacts/experiment.yaml"
    options = {"auth": ("reader", PASSWORDS["reader"]), "verify": str(certificate), "timeout": 30}
    assert requests.get(file, **options).ok
    assert requests.put(file, b"changed", **options).status_code == 403
    assert requests.delete(file, **options).status_code == 403


def test_a_user_who_may_only_read_serves(server, written, monkeypatch):
    log_in(monkeypatch, "reader")
    folder = Path(mlflow.artifacts.download_artifacts(VERSION))
    with servers.serving(servers.Store(Path.cwd(), server, folder), "--model", VERSION) as running:
        deadline = time.monotonic() + 120
        while (answer := running.post(servers.body(servers.IMAGE))).status_code == 503:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    assert answer.status_code == 200, answer.text
