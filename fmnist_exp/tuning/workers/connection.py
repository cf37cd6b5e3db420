"""The connection of the driver to a running Dask scheduler and its workers, and what is wrong when there is none."""

from __future__ import annotations

import ipaddress
import logging
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager

from distributed import Client, Security
from distributed.comm import core
from distributed.comm.addressing import get_address_host, resolve_address
from distributed.utils import LoopRunner

from fmnist_exp.errors import RequestError
from fmnist_exp.tracking.redact import first_line
from fmnist_exp.tuning.workers.jobs import Cluster

CONNECT_SECONDS = 5
WORKERS_SECONDS = 30  # a scheduler may be there before its workers
SETTLE_SECONDS = 2  # without a new worker: all are there
NO_TLS = "wrong version number"  # how OpenSSL says that the other side does not speak TLS

log = logging.getLogger(__name__)


def check(address: str) -> None:
    """Raise RequestError if the scheduler does not answer; warn about one that other machines reach without TLS."""
    with connect(address) as client:
        own = str(client.scheduler_info()["address"])
    if not _is_encrypted(own) and not _is_local(own):
        log.warning(
            "the Dask scheduler %s has no TLS: whoever reaches its port may run code on its workers;"
            " make certificates with `fmnist-exp certificates`",
            own,
        )


@contextmanager
def remote(address: str, workers: int | None) -> Iterator[Cluster]:
    """Connect to the workers of a running scheduler.

    Args:
        address: address of the scheduler.
        workers: number of trials at once; None stands for one per worker.

    Raises:
        RequestError: the scheduler does not answer or has no workers, or a worker would run several trials at once.
    """
    with connect(address) as client:
        try:
            client.wait_for_workers(1, timeout=WORKERS_SECONDS)
        except TimeoutError as error:
            raise RequestError(
                f"the Dask scheduler {address} has no workers; start some with `dask worker {address} --nthreads 1`"
            ) from error
        cluster = Cluster(client, workers)
        for worker, threads in cluster.threads().items():
            if threads != 1:
                raise RequestError(
                    f"the Dask worker {worker} would run {threads} trials in one process; start it with --nthreads 1"
                )
        _wait_for_all(cluster)
        try:
            yield cluster
        finally:
            cluster.close()


def _wait_for_all(cluster: Cluster) -> None:
    """Wait until no more workers join, because each takes its share of its host's cores when its first trial begins."""
    deadline = time.monotonic() + WORKERS_SECONDS
    before: set[str] = set()
    while before != (now := set(cluster.hosts())) and time.monotonic() < deadline:
        before = now
        time.sleep(SETTLE_SECONDS)


def connect(address: str) -> Client:
    """Return a client of a running scheduler, over TLS if its address begins with tls://.

    Raises RequestError if the scheduler does not answer, or if the certificates are missing or do not match.
    """
    security = _security(address)
    try:
        LoopRunner().run_sync(_greet, address, security)
        return Client(address, timeout=CONNECT_SECONDS, set_as_default=False, security=security)
    except (OSError, ValueError, TimeoutError, RuntimeError) as error:
        raise RequestError(f"the Dask scheduler {address} {_complaint(address, error)}") from error


async def _greet(address: str, security: Security) -> None:
    """Connect and disconnect. A Client that cannot connect may print a traceback when it is collected."""
    arguments = security.get_connection_args("client")
    await (await core.connect(address, timeout=CONNECT_SECONDS, **arguments)).close()


def _complaint(address: str, error: Exception) -> str:
    """Return what is wrong with the scheduler, as the rest of a sentence."""
    if _is_encrypted(address) and (reason := _tls_failure(error)):
        if reason == NO_TLS:
            return "does not use TLS; give its tcp:// address, or start it with DASK_CONFIG set"
        return (
            f"and this process do not accept each other's certificate ({reason});"
            " DASK_CONFIG must name the same file of `fmnist-exp certificates` for both"
        )
    return (
        "does not answer; start one with `dask scheduler` and give its tcp:// address,"
        " or its tls:// address if it has certificates"
    )


def _tls_failure(error: BaseException) -> str:
    """Return why TLS failed, or an empty text if something else did."""
    if isinstance(error, ValueError):  # the scheduler has sent its greeting as plain text before the handshake
        return NO_TLS
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return str(cause.verify_message)
        if isinstance(cause, ssl.SSLError) and cause.reason:
            return str(cause.reason).lower().replace("_", " ")
        cause = cause.__cause__ or cause.__context__
    # after its part of the handshake, a scheduler that refuses the certificate only closes the connection
    return "it closed the connection" if isinstance(error, core.CommClosedError) else ""


def _is_encrypted(address: str) -> bool:
    return address.startswith("tls://")


def _is_local(address: str) -> bool:
    """Return True if only processes of this machine reach the address."""
    try:
        return ipaddress.ip_address(get_address_host(resolve_address(address))).is_loopback
    except (OSError, ValueError):  # a name that is known elsewhere
        return False


def _security(address: str) -> Security:
    """Return Dask's settings of TLS. Raises RequestError unless they suit the address."""
    encrypted = _is_encrypted(address)
    if not encrypted and "://" in address and not address.startswith("tcp://"):
        raise RequestError(f"the address of a Dask scheduler begins with tls:// or tcp://, unlike {address}")
    try:
        security = Security()
        certified = security.get_connection_args("client")["ssl_context"] is not None
    except (OSError, ValueError) as error:
        raise RequestError(f"the certificates that Dask is to use cannot be read: {first_line(error)}") from error
    if encrypted and not certified:
        raise RequestError(
            f"the Dask scheduler {address} uses TLS, and this process has no certificate;"
            " set DASK_CONFIG to the file that `fmnist-exp certificates` wrote for the cluster"
        )
    if security.require_encryption and not encrypted:
        raise RequestError(
            f"the settings of Dask (DASK_CONFIG) ask for TLS; give a tls:// address instead of {address}"
        )
    return security
