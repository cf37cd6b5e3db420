"""Searches on a Dask cluster of separate processes, with PostgreSQL for studies and MLflow, and an MLflow server."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support import services, standin
from support.searches import FinishedSearch
from support.standin import Killer

from fmnist_exp.errors import RequestError
from fmnist_exp.tracking import store
from fmnist_exp.tuning.workers import certificates, study_lock, trial

needs_postgres = pytest.mark.skipif(not services.has_postgres(), reason="needs PostgreSQL: apt-get install postgresql")


@dataclass(frozen=True)
class Site:
    """The servers of a cluster, and a folder where workers and driver stand."""

    folder: Path
    tracking: str
    storage: str
    scheduler: str


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with contextlib.ExitStack() as stack:
        databases = stack.enter_context(services.postgres(folder, port=services.free_port()))
        server = services.mlflow_server(folder, f"{databases}/mlflow", "127.0.0.1", services.free_port())
        tracking = stack.enter_context(server)
        scheduler = stack.enter_context(services.dask_scheduler(folder, "127.0.0.1", services.free_port()))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", tracking)
        yield Site(folder, tracking, f"{databases}/studies", scheduler)


@needs_postgres
def test_a_cluster_tunes_and_survives_a_killed_worker(site):
    killer = Killer()
    with (
        services.dask_worker(site.folder, site.scheduler, "one"),
        services.dask_worker(site.folder, site.scheduler, "two", TF_ENABLE_ONEDNN_OPTS="0"),  # so bfloat16 is slow
    ):
        config = standin.configure(6, training__precision="bfloat16")
        request = {"storage": site.storage, "workers": None, "scheduler": site.scheduler}
        request |= {"callback": killer, "objective": standin.side_by_side}
        standin.search(config, "remote", **request)
    found = FinishedSearch("remote", storage=site.storage)
    found.check_nothing_is_open()
    assert found.counted == found.trials
    assert len(found.trials) == 6
    assert killer.together == 2
    assert len(killer.killed) == len(killer.retried) == 1
    (slow,) = [text for text in killer.notices if text.startswith("worker two")]
    assert slow.startswith("worker two computes slowly in bfloat16: ")
    # together == 2 says that both worked; a trial remembers the last one, and a killed process is slow to come back
    assert {trial.user_attrs["worker"] for trial in found.trials} <= {"one", "two"}


@needs_postgres
def test_who_holds_a_study_is_said_in_utc(site, monkeypatch):
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")  # PostgreSQL answers in it
    hours = [f"{datetime.now(UTC):%Y-%m-%d %H:}"]
    with (
        study_lock.hold(site.storage, "clock"),
        pytest.raises(RequestError) as refused,
        study_lock.hold(site.storage, "clock"),
    ):
        pass
    hours.append(f"{datetime.now(UTC):%Y-%m-%d %H:}")
    assert any(f"since {hour}" in str(refused.value) for hour in hours)


@pytest.mark.slow
@needs_postgres
def test_a_worker_with_another_version_of_the_package_is_refused(site, tmp_path):
    shutil.copytree(services.TESTS.parent / "fmnist_exp", tmp_path / "fmnist_exp")
    with (tmp_path / "fmnist_exp" / "errors.py").open("a") as module:
        module.write("# changed\n")
    with (
        services.dask_worker(site.folder, site.scheduler, "odd", PYTHONPATH=str(tmp_path)),
        pytest.raises(RequestError, match=r"the Dask worker tcp://.* cannot run .* another version of fmnist_exp"),
    ):
        standin.search(standin.configure(), "odd", storage=site.storage, workers=None, scheduler=site.scheduler)


@pytest.mark.slow
@needs_postgres
def test_a_worker_without_the_package_is_refused(site, tmp_path):
    with (
        services.dask_worker(site.folder, site.scheduler, "bare", PYTHONPATH=str(tmp_path)),
        pytest.raises(RequestError, match="fmnist_exp is missing or of another version there"),
    ):
        standin.search(standin.configure(), "bare", storage=site.storage, workers=None, scheduler=site.scheduler)


def test_what_keeps_a_worker_from_running_trials(shared_store, data, tmp_path):
    needs = trial.requirements_of(standin.configure(), data)
    assert trial.complaint(needs) == ""
    assert trial.complaint(replace(needs, code="x")).startswith("another version of fmnist_exp")
    assert "are not the driver's" in trial.complaint(replace(needs, seed=1))
    missing = replace(needs, data=needs.data.model_copy(update={"source": str(tmp_path / "none")}))
    assert trial.complaint(missing).startswith("data.source: ")
    elsewhere = trial.complaint(replace(needs, tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"))
    assert "is a file of another machine" in elsewhere
    assert not (tmp_path / "mlflow.db").exists()
    assert store.address() == needs.tracking_uri  # and none of this changed where this process writes


# in network namespaces: hosts with addresses of their own on this machine

BRIDGE = "fmx0"
HOSTS = {"fmx-head": "10.83.7.1", "fmx-one": "10.83.7.2", "fmx-two": "10.83.7.3"}


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[dict[str, str]]:
    """Three network namespaces on one bridge: names with their addresses."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("needs root and iproute2")
    with contextlib.ExitStack() as stack:
        try:
            ip("link", "add", BRIDGE, "type", "bridge")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"may not make network interfaces: {error.stderr.decode().strip()}")
        stack.callback(ip, "link", "del", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for number, (name, address) in enumerate(HOSTS.items()):
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            ip("link", "add", f"fmx{number + 1}", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"fmx{number + 1}", "master", BRIDGE, "up")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield HOSTS


@pytest.mark.slow
@needs_postgres
def test_three_hosts_tune_with_the_real_command_over_tls(hosts, tmp_path):
    head, one, two = hosts
    address = hosts[head]
    certificates.write(tmp_path / "tls.yaml")
    tls = {"DASK_CONFIG": str(tmp_path / "tls.yaml")}
    with contextlib.ExitStack() as stack:
        databases = stack.enter_context(services.postgres(tmp_path, address, 5432, head))
        server = services.mlflow_server(tmp_path, f"{databases}/mlflow", address, 5000, head)
        tracking = stack.enter_context(server)
        scheduler = stack.enter_context(services.dask_scheduler(tmp_path, address, 8786, head, **tls))
        for namespace in (one, two):
            folder = tmp_path / namespace
            folder.mkdir()
            stack.enter_context(services.dask_worker(folder, scheduler, namespace, namespace, **tls))
        command = [*services.within(head), sys.executable, "-m", "fmnist_exp", "tune", "--experiment", "tune_mlp"]
        command += ["--n_trials", "3", "--training.epochs", "1", "--study", "hosts", "--scheduler", scheduler]
        settings = {"MLFLOW_TRACKING_URI": tracking, "FMNIST_EXP_STORAGE": f"{databases}/studies"}
        settings |= {"PYTHONPATH": str(services.TESTS.parent), **tls}
        done = subprocess.run(
            command, cwd=tmp_path, env={**os.environ, **settings}, capture_output=True, text=True, timeout=500
        )
        assert done.returncode == 0, done.stdout + done.stderr
        ask = "import sys, optuna; s = optuna.load_study(study_name='hosts', storage=sys.argv[1]);"
        ask += "print(*sorted({t.user_attrs['worker'] for t in s.trials if t.state.is_finished()}))"
        asked = [*services.within(head), sys.executable, "-c", ask, f"{databases}/studies"]
        workers = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
    assert workers == [one, two]
    assert "registered fashion-mnist version 1" in done.stdout
