"""The databases of the measurement: files of SQLite, or a PostgreSQL of its own that survives between two calls."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

USER = "postgres"  # the system's user that runs PostgreSQL when this process is root, whom PostgreSQL refuses


@dataclass(frozen=True)
class Databases:
    """The addresses of the tracking store and of the studies' database."""

    tracking: str
    studies: str

    def bytes(self) -> dict[str, int]:
        """Return the size of each database in bytes."""
        from fmnist_exp.tracking import store

        sizes = {}
        for name, address in vars(self).items():
            if address.startswith("sqlite:///"):
                sizes[name] = Path(address.removeprefix("sqlite:///")).stat().st_size
                continue
            engine = store.engine(address)
            with engine.connect() as connection:
                query = "SELECT pg_database_size(current_database())"
                sizes[name] = int(connection.exec_driver_sql(query).scalar_one())
            engine.dispose()
        return sizes


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[Databases]:
    """Yield the databases in a folder. PostgreSQL runs until the block ends."""
    if kind == "sqlite":
        yield Databases(f"sqlite:///{folder}/mlflow.db", f"sqlite:///{folder}/studies.db")
        return
    with postgres(folder / "postgres") as server:
        yield Databases(f"{server}/mlflow", f"{server}/studies")


@contextmanager
def postgres(home: Path) -> Iterator[str]:
    """Run PostgreSQL with its default durability on a folder, and yield the address without the database's name."""
    tools = Path(
        (sorted(glob.glob("/usr/lib/postgresql/*/bin")) or [str(Path(shutil.which("initdb") or "").parent)])[-1]
    )
    as_user: list[str] = []
    home.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(home, *pwd.getpwnam(USER)[2:4])
        as_user = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--"]
    is_new = not (home / "data").exists()
    if is_new:
        setup = [*as_user, tools / "initdb", "-D", home / "data", "-A", "trust", "-U", "tester"]
        subprocess.run([*map(str, setup)], check=True, capture_output=True, cwd="/")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    start = [*as_user, tools / "postgres", "-D", home / "data", "-h", "127.0.0.1", "-p", port, "-k", ""]
    with (home.parent / "postgres.log").open("a") as log:
        server = subprocess.Popen([*map(str, start)], stdout=log, stderr=log, cwd="/")
    address = ["-h", "127.0.0.1", "-p", port, "-U", "tester"]
    try:
        while subprocess.run([str(tools / "pg_isready"), *map(str, address)], capture_output=True).returncode:
            if server.poll() is not None:
                raise RuntimeError(f"PostgreSQL ended: see {home.parent / 'postgres.log'}")
            time.sleep(0.1)
        for name in ("mlflow", "studies") if is_new else ():
            subprocess.run([*map(str, [tools / "createdb", *address, name])], check=True)
        yield f"postgresql+psycopg://tester@127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)  # at once; after SIGTERM it would wait for connections that are still open
        server.wait(60)
