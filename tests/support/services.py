"""Real servers for tests, each a process of its own, in a network namespace if one is given."""

import contextlib
import glob
import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

POSTGRES = sorted(glob.glob("/usr/lib/postgresql/*/bin")) or [str(Path(shutil.which("initdb") or "none/x").parent)]
TLS = "--ssl-certfile server.pem --ssl-keyfile server.key"
TESTS = Path(__file__).parents[1]


def has_postgres() -> bool:
    return Path(POSTGRES[-1], "initdb").exists()


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def within(namespace: str | None) -> list[str]:
    return ["ip", "netns", "exec", namespace] if namespace else []


def with_package() -> dict[str, str]:
    """Return the environment in which other processes find the package and the tests' support."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}


@contextlib.contextmanager
def process(
    command: Sequence[str | Path], folder: Path, name: str, end: signal.Signals = signal.SIGKILL, **environment: str
) -> Iterator[subprocess.Popen]:
    """Run a server whose output goes to a file until the block ends; then it gets a signal, with all its children.

    What a server of a test has is not needed when it ends, so by default it is killed, which takes no time.
    """
    settings = {**with_package(), **environment}
    with (folder / f"{name}.log").open("w") as log:
        running = subprocess.Popen(
            [*map(str, command)], cwd=folder, env=settings, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, end)
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def wait_for(ready: Callable[[], bool], running: subprocess.Popen, log: Path, seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert running.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"not ready after {seconds} s:\n{log.read_text()}"
        time.sleep(0.1)


@contextlib.contextmanager
def postgres(folder: Path, host: str = "127.0.0.1", port: int = 0, namespace: str | None = None) -> Iterator[str]:
    """A PostgreSQL of its own with the databases `mlflow` and `studies`; yields the address without the database."""
    tools = Path(POSTGRES[-1])
    # not pytest's folder, which is closed to other users
    with tempfile.TemporaryDirectory(prefix="postgres-") as made:
        home = Path(made)
        user: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to be run by root
            nobody = pwd.getpwnam("postgres")
            os.chown(home, nobody.pw_uid, nobody.pw_gid)
            # unlike runuser, setpriv is replaced by the command, which then gets the signal at its end itself
            user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
        setup = [*user, tools / "initdb", "-D", home / "data", "-A", "trust", "-U", "tester", "--no-sync"]
        subprocess.run([*map(str, setup)], check=True, capture_output=True, cwd="/")
        rules = "host all guarded 0.0.0.0/0 scram-sha-256\nhost all all 0.0.0.0/0 trust\n"  # `guarded` needs a password
        (home / "data" / "pg_hba.conf").write_text(rules)
        options = ["-h", host, "-p", str(port), "-k", "", "-F"]
        start = [*within(namespace), *user, tools / "postgres", "-D", home / "data", *options]
        client = [
            *within(namespace),
            tools / "psql",
            "-h",
            host,
            "-p",
            str(port),
            "-U",
            "tester",
            "-d",
            "postgres",
            "-c",
        ]

        def sql(text: str) -> bool:
            return subprocess.run([*map(str, client), text], capture_output=True).returncode == 0

        with process(start, folder, "postgres", signal.SIGQUIT) as running:  # an immediate shutdown
            wait_for(lambda: sql("SELECT 1"), running, folder / "postgres.log")
            assert sql("CREATE DATABASE mlflow")
            assert sql("CREATE DATABASE studies")
            yield f"postgresql+psycopg://tester@{host}:{port}"


@contextlib.contextmanager
def mlflow_server(
    folder: Path, database: str, host: str, port: int, namespace: str | None = None, tls: bool = False, **users: str
) -> Iterator[str]:
    """An MLflow server that keeps artifacts in the folder, perhaps with certificates there; yields its address.

    Environment variables in `users` turn on MLflow's own authentication.
    """
    command = [*within(namespace), sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", database, "--artifacts-destination", str(folder / "artifacts")]
    command += ["--uvicorn-opts", f"{TLS} --timeout-graceful-shutdown 1"] if tls else []
    command += ["--app-name", "basic-auth"] if users else []
    address = f"{'https' if tls else 'http'}://{host}:{port}"
    trusted = ssl.create_default_context(cafile=folder / "authority.pem") if tls else None
    # no job runners: they start slowly; and a server on an address of its own must be told which names it has
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_SERVER_ALLOWED_HOSTS": f"{host}:{port}"} | users

    def answers() -> bool:
        if namespace:
            asked = [
                *within(namespace),
                sys.executable,
                "-c",
                f"import urllib.request as u; u.urlopen('{address}/health')",
            ]
            return subprocess.run(asked, capture_output=True).returncode == 0
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{address}/health", timeout=5, context=trusted) as answer,
        ):
            return bool(answer.status == 200)
        return False

    with process(command, folder, "mlflow", **settings) as running:
        wait_for(answers, running, folder / "mlflow.log")
        yield address


@contextlib.contextmanager
def dask_scheduler(
    folder: Path, host: str, port: int, namespace: str | None = None, **environment: str
) -> Iterator[str]:
    """A Dask scheduler, with TLS if DASK_CONFIG is in the environment; yields its address."""
    command = [*within(namespace), sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", host]
    command += ["--port", str(port), "--no-dashboard", "--dashboard-address", f"{host}:0"]
    with process(command, folder, "scheduler", **environment) as running:
        wait_for(lambda: "dashboard at" in (folder / "scheduler.log").read_text(), running, folder / "scheduler.log")
        yield f"{'tls' if 'DASK_CONFIG' in environment else 'tcp'}://{host}:{port}"


@contextlib.contextmanager
def dask_worker(
    folder: Path, scheduler: str, name: str, namespace: str | None = None, **environment: str
) -> Iterator[subprocess.Popen]:
    """A Dask worker with a nanny, as docs/how-to/run-on-a-cluster.md starts it."""
    command = [*within(namespace), sys.executable, "-m", "distributed.cli.dask_worker", scheduler, "--name", name]
    command += ["--nthreads", "1", "--no-dashboard", "--local-directory", str(folder / f"scratch-{name}")]
    with process(command, folder, f"worker-{name}", **environment) as running:
        wait_for(
            lambda: "Registered to" in (folder / f"worker-{name}.log").read_text(),
            running,
            folder / f"worker-{name}.log",
        )
        yield running


class MlflowServer:
    """A server that a test stops and starts again at the same address, with the same database."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder, self.database, self.port = folder, database, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.running = contextlib.ExitStack()

    def start(self) -> None:
        self.running.enter_context(mlflow_server(self.folder, self.database, "127.0.0.1", self.port))

    def stop(self) -> None:
        self.running.close()
