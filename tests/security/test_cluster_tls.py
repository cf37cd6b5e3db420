"""A Dask cluster with the certificates of `fmnist-exp certificates`: who may talk to it, and what others hear."""

import gc
import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import dask
import psutil
import pytest
import requests
import yaml
from click.testing import CliRunner
from distributed import LocalCluster
from support import services, standin
from support.searches import FinishedSearch

from fmnist_exp.cli import main
from fmnist_exp.errors import RequestError
from fmnist_exp.tuning.workers import certificates, connection, local


def using(settings: dict) -> dask.config.set:
    """Dask's settings with these, as if DASK_CONFIG named their file."""
    return dask.config.set(dask.config.merge(dask.config.config, settings))


@dataclass(frozen=True)
class Certified:
    """A scheduler and two workers that were started with the file of `fmnist-exp certificates`."""

    folder: Path
    file: Path
    scheduler: str

    @property
    def settings(self) -> dict:
        return yaml.safe_load(self.file.read_text())


@pytest.fixture(scope="module")
def cluster(shared_store, tmp_path_factory) -> Iterator[Certified]:
    folder = tmp_path_factory.mktemp("cluster")
    file = folder / "tls.yaml"
    made = CliRunner().invoke(main, ["certificates", "--file", str(file)])
    assert (made.exit_code, made.output.startswith(f"wrote {file}; ")) == (0, True), made.output
    with ExitStack() as stack:
        port = services.free_port()
        address = stack.enter_context(services.dask_scheduler(folder, "127.0.0.1", port, DASK_CONFIG=str(file)))
        for name in ("one", "two"):
            stack.enter_context(services.dask_worker(folder, address, name, DASK_CONFIG=str(file)))
        yield Certified(folder, file, address)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> dict:
    """The settings of another cluster."""
    file = tmp_path_factory.mktemp("foreign") / "tls.yaml"
    certificates.write(file)
    return yaml.safe_load(file.read_text())


@pytest.fixture(scope="module")
def open_scheduler() -> Iterator[str]:
    """A scheduler of this machine without TLS."""
    with LocalCluster(n_workers=0, processes=False, protocol="tcp://", dashboard_address="127.0.0.1:0") as local:
        yield local.scheduler_address


def test_a_search_runs_over_tls(cluster):
    with using(cluster.settings):
        request = {"workers": None, "scheduler": cluster.scheduler, "objective": standin.side_by_side}
        standin.search(standin.configure(2), "tls", **request)
    found = FinishedSearch("tls")
    found.check_nothing_is_open()
    assert {trial.user_attrs["worker"] for trial in found.trials} == {"one", "two"}


def addresses(cluster: Certified) -> list[str]:
    """The scheduler, its workers and their nannies."""
    with using(cluster.settings), connection.connect(cluster.scheduler) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
    return [cluster.scheduler, *workers, *(worker["nanny"] for worker in workers.values())]


def answer(address: str, context: ssl.SSLContext | None) -> bytes:
    """Return what a process of the cluster sends to someone who connects; nothing if it ends the connection."""
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as plain:
        with suppress(ssl.SSLError, ConnectionError):
            if context is None:
                plain.sendall(b"\0" * 64)
                return plain.recv(1000)
            with context.wrap_socket(plain) as encrypted:
                return encrypted.recv(1000)
        return b""


def client_context(settings: dict, folder: Path, certificate: bool) -> ssl.SSLContext:
    """A client that trusts everyone, with the certificate of a cluster or with none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate:
        (folder / "client.pem").write_text(settings["distributed"]["comm"]["tls"]["client"]["cert"])
        context.load_cert_chain(folder / "client.pem")
    return context


@pytest.mark.attack(
    "a Dask client without or with a foreign certificate",
    entry="scheduler, workers, nannies",
    result="connection closed",
)
def test_no_process_of_the_cluster_talks_to_strangers(cluster, foreign, tmp_path):
    member = client_context(cluster.settings, tmp_path, True)
    strangers = [client_context(foreign, tmp_path, True), client_context(foreign, tmp_path, False), None]
    processes = addresses(cluster)
    assert len(processes) == 5
    for address in processes:
        assert address.startswith("tls://")
        assert b"compression" in answer(address, member)  # Dask's greeting
        for stranger in strangers:
            assert answer(address, stranger) == b""


def refusal(address: str, settings: dict) -> str:
    with using(settings), pytest.raises(RequestError) as refused:
        connection.check(address)
    said = str(refused.value)
    assert "\n" not in said
    return said


@pytest.mark.attack(
    "a scheduler with a foreign certificate", entry="tune --scheduler", result="refused in one sentence"
)
def test_a_driver_is_told_what_is_wrong_with_its_certificate(cluster, foreign, tmp_path):
    assert "has no certificate; set DASK_CONFIG" in refusal(cluster.scheduler, {})
    said = refusal(cluster.scheduler, foreign)
    assert "do not accept each other's certificate (self-signed certificate); DASK_CONFIG must name" in said
    own_authority = {"distributed": {"comm": {"tls": {"client": foreign["distributed"]["comm"]["tls"]["client"]}}}}
    said = refusal(cluster.scheduler, dask.config.merge(cluster.settings, own_authority))
    assert "do not accept each other's certificate" in said
    missing = {"distributed": {"comm": {"tls": {"client": {"cert": str(tmp_path / "none.pem")}}}}}
    said = refusal(cluster.scheduler, dask.config.merge(cluster.settings, missing))
    assert "the certificates that Dask is to use cannot be read" in said
    assert "does not answer" in refusal(cluster.scheduler.replace("tls://", "tcp://"), {})


@pytest.mark.attack("a scheduler that asks for plain text", entry="tune --scheduler")
def test_a_driver_with_certificates_refuses_to_talk_without_tls(open_scheduler, foreign):
    assert "give a tls:// address instead of tcp://" in refusal(open_scheduler, foreign)
    assert "begins with tls:// or tcp://" in refusal(open_scheduler.replace("tcp://", "ws://"), {})
    encrypted = open_scheduler.replace("tcp://", "tls://")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # tornado leaves this socket to the garbage collector
        assert f"{encrypted} does not use TLS" in refusal(encrypted, foreign)
        gc.collect()


def test_a_scheduler_of_this_machine_alone_gives_no_warning(open_scheduler, caplog):
    connection.check(open_scheduler)
    assert [record for record in caplog.records if record.name == connection.log.name] == []


HOST = "10.83.7.9"  # of a network that ends with the command below
REACHABLE = f"""
from distributed import LocalCluster
from fmnist_exp.tuning.workers import connection
shown = {{"protocol": "tcp://", "host": "{HOST}", "dashboard_address": "{HOST}:0"}}
with LocalCluster(n_workers=0, processes=False, **shown) as local:
    connection.check(local.scheduler_address)
"""


@pytest.mark.attack("a scheduler that the network reaches without TLS", entry="tune --scheduler", result="one warning")
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2")
def test_a_scheduler_that_other_machines_reach_without_tls_gives_one_warning():
    network = f"ip link set lo up && ip addr add {HOST}/32 dev lo"
    if subprocess.run(["unshare", "-n", "sh", "-c", network], capture_output=True).returncode:
        pytest.skip("may not make a network of its own")
    command = ["unshare", "-n", "sh", "-c", f'{network} && exec "$0" -c "$1"', sys.executable, REACHABLE]
    done = subprocess.run(command, env=services.with_package(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.sub(r":\d+", ":PORT", done.stderr) == (
        f"the Dask scheduler tcp://{HOST}:PORT has no TLS: whoever reaches its port may run code on its workers;"
        " make certificates with `fmnist-exp certificates`\n"
    )


PAGES = ("/info/main/workers.html", "/info/main/logs.html", "/json/identity.json", "/metrics", "/status")


@pytest.mark.attack("reading the HTTP pages of a Dask scheduler", entry="scheduler", result="not found")
def test_the_http_pages_of_a_scheduler_with_certificates_say_nothing(cluster):
    log = (cluster.folder / "scheduler.log").read_text()
    (address,) = re.findall(r"dashboard at: +(http://127\.0\.0\.1:\d+)", log)
    assert requests.get(f"{address}/health", timeout=10).text == "ok"
    assert {requests.get(address + page, timeout=10).status_code for page in PAGES} == {404}


def listening() -> set[tuple[str, int]]:
    """The addresses on which this process and its children listen."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    found = [connection for process in processes for connection in process.net_connections("inet")]
    return {tuple(one.laddr) for one in found if one.status == psutil.CONN_LISTEN}


@pytest.mark.attack("reading the HTTP pages of local workers", entry="tune", result="not found")
def test_local_workers_say_nothing_to_other_users_of_this_machine():
    before = listening()
    codes = []
    with local.starting(2) as started:
        started.ready()
        opened = listening() - before
        for host, port in opened:
            assert host == "127.0.0.1"
            for page in PAGES:
                with suppress(requests.ConnectionError):  # as TLS ports end it
                    codes.append(requests.get(f"http://{host}:{port}{page}", timeout=10).status_code)
    assert len(opened) == 8  # scheduler, two workers, two nannies, and three HTTP servers of Dask
    assert codes == [404] * 3 * len(PAGES)


def test_the_file_of_the_certificates_is_for_its_owner_and_never_overwritten(tmp_path):
    file = tmp_path / "tls.yaml"
    certificates.write(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_text()
    with pytest.raises(RequestError, match=r"tls\.yaml exists; a cluster may be using it"):
        certificates.write(file)
    assert file.read_text() == before
    with pytest.raises(RequestError, match=r"tls\.yaml cannot be written: No such file or directory; make its folder"):
        certificates.write(tmp_path / "none" / "tls.yaml")
