"""The services of a soak, which the adversary kills and a supervisor starts again: PostgreSQL and MLflow's server."""

import contextlib
import glob
import os
import pwd
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from benchmarks import processes

TOOLS = Path(
    (sorted(glob.glob("/usr/lib/postgresql/*/bin")) or [str(Path(shutil.which("initdb") or "none/x").parent)])[-1]
)
READY_SECONDS = 180
AGAIN_SECONDS = 2.0  # between two attempts to start a service that ended by itself


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Service:
    """A server process that is kept alive while it is wanted."""

    def __init__(
        self, command: Sequence[object], folder: Path, log: Path, ready: Callable[[], bool], **env: str
    ) -> None:
        self.command = [str(word) for word in command]
        self.folder, self.log, self._ready = folder, log, ready
        self._environment = {**processes.environment(folder), **env}
        self.wanted = False
        self.starts = 0
        self.ends = 0  # by itself, for example because its database was away
        self._process: subprocess.Popen | None = None
        self._started = 0.0

    @property
    def pid(self) -> int | None:
        """The process, if it is alive."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def main_pid(self) -> int | None:
        """Return the largest of the process and its descendants, if it is alive."""
        if (pid := self.pid) is None:
            return None
        try:
            process = psutil.Process(pid)
            return max([process, *process.children(recursive=True)], key=lambda one: one.memory_info().rss).pid
        except psutil.Error:  # one of them ended meanwhile
            return None

    def start(self) -> None:
        """Start the process without waiting until it answers."""
        self.wanted = True
        self.starts += 1
        self._started = time.monotonic()
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                self.command, cwd=self.folder, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def tick(self) -> None:
        """Start the process again if it ended by itself."""
        if self.wanted and self.pid is None and time.monotonic() > self._started + AGAIN_SECONDS:
            self.ends += 1
            self.start()

    def kill(self) -> None:
        """End the process and all its children by SIGKILL, and do not start it again before `start`."""
        self.wanted = False
        if self._process is not None:
            kill_tree(self._process.pid)
            self._process.wait()

    def wait(self) -> None:
        """Wait until the service answers; start it again if it ends. Raises TimeoutError."""
        deadline = time.monotonic() + READY_SECONDS
        while not self._ready():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not ready after {READY_SECONDS} s: {self.command}\n{self.log.read_text()[-3000:]}")
            self.tick()
            time.sleep(0.2)


def kill_tree(pid: int) -> None:
    """Send SIGKILL to a process and all its descendants, in whatever process group they are."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        everyone = [process, *process.children(recursive=True)]
        for one in everyone:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(everyone[1:], timeout=10)


class Database(Service):
    """A PostgreSQL with the databases `mlflow` and `studies`."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.port = free_port()
        home = folder / "postgres"
        home.mkdir()
        user: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to be run by root
            other = pwd.getpwnam("postgres")
            os.chown(home, other.pw_uid, other.pw_gid)
            user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]
        make = [*user, TOOLS / "initdb", "-D", home / "data", "-A", "trust", "-U", "tester", "--no-sync"]
        subprocess.run([str(word) for word in make], check=True, capture_output=True, cwd="/")
        # -F: the machine itself does not fail here, so that nothing is lost without fsync
        command = [*user, TOOLS / "postgres", "-D", home / "data", "-h", "127.0.0.1", "-p", self.port, "-k", "", "-F"]
        super().__init__(command, Path("/"), log, lambda: self.sql("SELECT 1") is not None)

    def url(self, name: str) -> str:
        """Return the address of a database as SQLAlchemy writes it."""
        return f"postgresql+psycopg://tester@127.0.0.1:{self.port}/{name}"

    def sql(self, text: str, name: str = "postgres") -> list[tuple] | None:
        """Return the rows of a query, an empty list if it has none, or None if the database does not answer."""
        import psycopg

        try:
            where = {"host": "127.0.0.1", "port": self.port, "user": "tester", "dbname": name}
            with psycopg.connect(**where, connect_timeout=5, autocommit=True) as connection:
                found = connection.execute(text)
                return found.fetchall() if found.description else []
        except psycopg.OperationalError:
            return None

    def end_sessions(self) -> int:
        """End every connection of the two databases; return how many there were."""
        ended = self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ('mlflow', 'studies')"
        )
        return len(ended or [])


def tracking_server(folder: Path, log: Path, database: str, artifacts: Path) -> tuple[Service, str]:
    """Return an MLflow server that keeps its runs in the database, and the server's address."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = processes.python("mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers", 1)
    command += ["--backend-store-uri", database, "--artifacts-destination", str(artifacts)]

    def answers() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
        return False

    quick = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # its job runners start slowly, and nothing here needs them
    return Service(command, folder, log, answers, **quick), url


class Disk:
    """A small file system of its own, which can be filled and freed. Only root can mount one."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)]
        self.is_mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0

    def fill(self) -> None:
        """Fill what is free with one file."""
        with (self.folder / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
            for size in (2**24, 2**20, 2**16, 2**12):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)

    def free(self) -> None:
        """Delete that file."""
        (self.folder / "filler").unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount the file system."""
        if self.is_mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=False)
